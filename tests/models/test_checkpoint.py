"""Damaged, missing and foreign files of a model's folder are one line that names them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from transformers import modeling_utils

from pith.core import ModelError, PithWarning
from pith.models import builtin, load
from pith.models.checkpoint import weight_files

SHAPE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE, vocab_size=4096)).save_pretrained(tmp_path)
    builtin()[1].save_pretrained(tmp_path)
    return tmp_path


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return str(caught.value)


TEXTS = [b"", b"5", b"[1]", b'{"a": ', b"[" * 100_000, bytes(range(256))]


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("text", TEXTS, ids=["empty", "number", "list", "truncated", "deep", "binary"])
def test_damaged_json(folder: Path, name: str, text: bytes) -> None:
    (folder / name).write_bytes(text)
    found = refused(folder)
    assert name in found or "the tokenizer of" in found


@pytest.mark.parametrize("value", [5, {"a": 1}, True, [5], []])
def test_an_architecture_that_is_none(folder: Path, value: object) -> None:
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "architectures": value}))
    if value == [5]:
        assert "is a 5, which is no causal language model" in refused(folder)
    else:  # its model_type says what it is
        assert load(str(folder)).model.config.model_type == "llama"


def test_an_index_names_what_is_there_and_inside(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(tensors, "one.safetensors")}))
    assert weight_files(folder) == [folder / "one.safetensors"]
    load(str(folder))
    for name in ("../../etc/hostname", "/etc/hostname", f"../{folder.name}/one.safetensors"):
        index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, name)}))
        assert "which is outside of the folder" in refused(folder)
    index.write_text(json.dumps({"weight_map": {**dict.fromkeys(tensors, "one.safetensors"), "x": "two.safetensors"}}))
    assert "lacks 'two.safetensors', one of 2 files with weights" in refused(folder)
    for damaged in ({}, {"weight_map": 5}, {"weight_map": {}}, {"weight_map": {"a": 5}}):
        index.write_text(json.dumps(damaged))
        assert "it has no weight_map of names to files" in refused(folder)


@pytest.mark.parametrize("length", [0, 3, 8, 2**63, 10**6])
def test_headers_that_lie(folder: Path, length: int) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes((length.to_bytes(8, "little") + whole[8:])[: 4 if length == 3 else None])
    assert "model.safetensors of" in refused(folder)
    (folder / "model.safetensors").write_bytes(whole[:-1])
    assert "model.safetensors of" in refused(folder)


def test_empty_weights_and_dtypes_that_hold_no_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({}, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lack 12 tensors" in refused(folder)
    name = "model.layers.0.mlp.up_proj.weight"
    for dtype in (torch.int8, torch.uint8, torch.int64, torch.bool, torch.float8_e4m3fn):
        save_file({**tensors, name: tensors[name].to(dtype)}, folder / "model.safetensors", metadata={"format": "pt"})
        assert f"{name} in model.safetensors" in refused(folder)
    save_file({**tensors, name: tensors[name].half()}, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(str(folder)).model.dtype == torch.float32


def test_an_adapter_is_not_left_out_in_silence(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    assert "holds a PEFT adapter" in refused(folder)


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs users")
def test_weights_that_this_user_may_not_read_are_not_called_missing(folder: Path) -> None:
    program = """
import codecs, os, sys
from pathlib import Path
from pith.core import ModelError
from pith.models.checkpoint import require_readable
codecs.lookup("utf-8-sig")  # a user without rights may not be able to import it later
if os.getuid() == 0:
    os.setuid(65534)
try:
    require_readable(Path(sys.argv[1]))
except ModelError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as place:  # those of pytest may be entered by one user only
        copy = Path(shutil.copytree(folder, Path(place) / "model"))
        for path in (Path(place), copy, *copy.iterdir()):
            path.chmod(0o755)
        (copy / "model.safetensors").chmod(0)
        done = subprocess.run([sys.executable, "-c", program, str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "model.safetensors' cannot be read: permission denied" in done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}),
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "some/body--evil.Model"}}),
        ("config.json", {"_attn_implementation": "kernels-community/flash-attn2"}),
        ("config.json", {"attn_implementation": "some/body"}),
        ("config.json", {"experts_implementation": "sonicmoe"}),
        ("config.json", {"fusion_config": {"patch_embeddings": True}}),
        ("config.json", {"quantization_config": {"quant_method": "eetq"}}),
        ("config.json", {"custom_generate": "some/body", "custom_pipelines": {"text": {"impl": "evil.Pipe"}}}),
        ("config.json", {"transformers_weights": "../evil.safetensors"}),
        ("generation_config.json", {"custom_generate": "some/body"}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
        ("tokenizer_config.json", {"tokenizer_class": "evil.Tokenizer"}),
    ],
)
def test_no_file_brings_code(folder: Path, name: str, said: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is loaded as plain Transformers' own, or refused in one line; the code beside it never runs."""
    code = f"from pathlib import Path\nPath({str(folder / 'ran')!r}).write_text('')\n"
    (folder / "evil.py").write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(f"{code}def generate(*_, **__): pass\n")
    whole = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**whole, **said}))
    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", lambda *_, **__: pytest.fail("a kernel"))
    with suppress(ModelError), warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        model = load(str(folder)).model
        assert type(model) is hf.LlamaForCausalLM
        assert model.config._attn_implementation in ("sdpa", "eager")
        model.generate(torch.tensor([[1, 2]]), max_new_tokens=1)
    assert not (folder / "ran").exists()


def test_a_chat_template_runs_no_code(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.system('true') }}"
    )
    tokenizer = load(str(folder)).tokenizer
    with pytest.raises(Exception, match=r"unsafe|undefined"):
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
