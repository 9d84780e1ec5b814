from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import pith
from contracts.compressors import gpt2, llama
from contracts.tiny import tiny, tokens
from pith.core import InputError, ModelError
from pith.core.folders import MANIFEST
from pith.weights.folder import FILE, is_pith, load_folder
from pith.weights.packed import PackedLinear

pytestmark = pytest.mark.filterwarnings("ignore::pith.core.PithWarning")


def packed(model: Any, recipe: str = "rtn(bits=4, group_size=32)") -> Any:
    return pith.compress(model, recipe)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(tokens(2, 9)).logits
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    packed(llama(tied=True)).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["gemma3", "qwen3", "phi3", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("skip", ["lm_head", ""])
def test_architectures_come_back_bit_for_bit(name: str, skip: str, tmp_path: Path) -> None:
    model = packed(gpt2() if name == "gpt2" else tiny(name), f"rtn(bits=3, group_size=32, skip={skip!r})")
    given = logits(model)
    model.save_pretrained(tmp_path)
    again = load_folder(tmp_path)
    assert torch.equal(logits(again), given)
    assert type(again).__name__ == type(model).__name__
    assert again.config.model_type == model.config.model_type
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / FILE).read_bytes() == (tmp_path / FILE).read_bytes()


def test_a_packed_head_is_not_tied_to_the_embeddings(tmp_path: Path) -> None:
    model = packed(llama(tied=True), "rtn(bits=4, group_size=32, skip='')")
    model.save_pretrained(tmp_path)
    again = load_folder(tmp_path)
    assert isinstance(again.lm_head, PackedLinear)
    assert torch.equal(again.model.embed_tokens.weight, llama(tied=True).model.embed_tokens.weight)


def test_tied_embeddings_are_written_once_and_tied_again(folder: Path) -> None:
    assert "lm_head.weight" not in load_file(folder / FILE)
    again = load_folder(folder)
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_another_dtype_can_be_asked_for(folder: Path) -> None:
    again = load_folder(folder, torch.bfloat16)
    assert {one.dtype for one in again.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(logits(again).float(), logits(load_folder(folder)), rtol=0.1, atol=0.5)


def test_generation_settings_come_along(tmp_path: Path) -> None:
    model = packed(llama())
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(tmp_path)
    assert load_folder(tmp_path).generation_config.max_new_tokens == 7


def test_it_is_not_sent_anywhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="push_to_hub=True is not allowed"):
        packed(llama()).save_pretrained(tmp_path, push_to_hub=True)


def test_a_plain_model_saves_as_ever(tmp_path: Path) -> None:
    model = packed(llama())
    for name, one in list(model.named_modules()):
        if isinstance(one, PackedLinear):
            model.set_submodule(name, nn.Linear(one.in_features, one.out_features, bias=False))
    from pith.weights.folder import as_saved

    as_saved(model)
    model.save_pretrained(tmp_path)
    assert not is_pith(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()


def broken(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_folder(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_changed_files_are_found_by_their_hashes(folder: Path) -> None:
    assert set(json.loads((folder / MANIFEST).read_text())["files"]) == {"config.json", "generation_config.json", FILE}
    for name in ("config.json", "generation_config.json", FILE):
        whole = (folder / name).read_bytes()
        changed = bytearray(whole)
        changed[-9] ^= 1
        (folder / name).write_bytes(changed)
        assert f"{name} of {folder} is damaged or was changed" in broken(folder)
        (folder / name).unlink()
        assert f"'{folder / name}' cannot be read: there is no such file" in broken(folder)
        (folder / name).write_bytes(whole)
    load_folder(folder)


def test_saving_again_replaces_the_hashes(folder: Path) -> None:
    (folder / "mine").write_text("mine")
    packed(llama(), "rtn(bits=3, group_size=32)").save_pretrained(folder)
    assert load_folder(folder).model.layers[0].mlp.up_proj.bits == 3
    assert (folder / "mine").read_text() == "mine"
    assert not list(folder.glob("*.draft"))


def test_damaged_folders_are_refused_in_one_line(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    weights, config = (folder / FILE).read_bytes(), (folder / "config.json").read_text()
    tensors = {key: one.clone() for key, one in load_file(folder / FILE).items()}  # the file is overwritten
    name = "model.layers.0.mlp.down_proj.codes"

    (folder / FILE).write_bytes(weights[: len(weights) // 2])
    assert "cannot be read" in broken(folder)
    (folder / FILE).unlink()
    assert "cannot be read" in broken(folder)
    save_file({key: one for key, one in tensors.items() if key != name}, folder / FILE)
    assert f"lack 1 tensors that the model needs, such as {name}" in broken(folder)
    save_file({**tensors, "something.else": torch.ones(1)}, folder / FILE)
    assert "hold 1 tensors which the model does not know, such as something.else" in broken(folder)
    save_file({**tensors, name: tensors[name][:, :-1].contiguous()}, folder / FILE)
    assert "do not fit" in broken(folder)
    save_file(tensors, folder / FILE)

    said = json.loads(config)
    for change, words in [
        ({"plain": {"model_type": "nothing_like_it"}}, "cannot be read"),
        ({"stand_ins": [{"name": "model.layers.0", "kind": "nothing"}]}, "kind 'nothing' is not known here"),
        ({"stand_ins": [{"name": "model.layers.9", "kind": "int8"}]}, "no module 'model.layers.9'"),
        ({"stand_ins": [{"name": "model.layers.0.mlp.up_proj", "kind": "int8"}]}, "cannot be built"),
        ({"stand_ins": 5}, "cannot be built"),
        ({"stand_ins": [5]}, "cannot be built"),
        ({"plain": {**said["plain"], "hidden_size": -3}}, "cannot be"),
        ({"dtype": "nothing"}, "cannot be read"),
    ]:
        (folder / "config.json").write_text(json.dumps({**said, **change}))
        assert words in broken(folder)
    (folder / "config.json").write_text(config[: len(config) // 2])
    assert "cannot be read" in broken(folder)
    assert not is_pith(folder)
    for text in ("", "5", "[1]", "[" * 100_000, "\udcff"):
        (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        assert "cannot be read" in broken(folder)
        assert not is_pith(folder)
    (folder / "config.json").write_text(config)
    (folder / "generation_config.json").write_text("[1]")
    assert "generation_config.json of" in broken(folder)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the system to tell what a process holds")
def test_loading_never_holds_the_dense_weights(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 1024, "intermediate_size": 8192, "num_hidden_layers": 4, "num_attention_heads": 8}
    model = packed(LlamaForCausalLM(LlamaConfig(**shape, vocab_size=64)).eval(), "rtn(bits=4)")
    model.save_pretrained(tmp_path)
    program = """
import re, sys
from pathlib import Path
from pith.weights.folder import load_folder
def most(): return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
from pith.core import methods
methods()
before = most()
load_folder(Path(sys.argv[1]))
print(most() - before)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    dense = 4 * 4 * (3 * 1024 * 8192 + 4 * 1024 * 1024)
    written = (tmp_path / FILE).stat().st_size
    assert written < dense / 6
    assert int(done.stdout) < 2.6 * written + 40e6 < dense
