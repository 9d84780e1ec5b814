"""Models load from the package, a folder or the hub, and whatever cannot be loaded says why in one line."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from pith.core import InputError, ModelError
from pith.models import builtin, load, require_positions
from pith.weights import compress

SMALL = {
    "vocab_size": 4096,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model folder."""
    torch.manual_seed(0)
    hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL)).to(torch.bfloat16).save_pretrained(tmp_path)
    builtin()[1].save_pretrained(tmp_path)
    return tmp_path


def refused(name: str | Path, error: type[Exception] = ModelError) -> str:
    """The one line with which a model is refused."""
    with pytest.raises(error) as caught:
        load(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_builtin() -> None:
    model, tokenizer = builtin()
    assert model.dtype == torch.float32
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) <= 8_000_000
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert model.config.max_position_embeddings == 4096
    assert tokenizer.padding_side == "left"
    assert len(tokenizer(" 4821", add_special_tokens=False).input_ids) >= 4, "digits are split"


def test_a_folder_keeps_its_dtype(folder: Path) -> None:
    loaded = load(str(folder))
    assert loaded.name == str(folder)
    assert loaded.model.dtype == torch.bfloat16
    assert load(str(folder), dtype=torch.float32).model.dtype == torch.float32
    assert load(str(folder), dtype="float16").model.dtype == torch.float16


def test_padding_is_always_possible(folder: Path) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(folder)
    tokenizer = load(str(folder)).tokenizer
    assert tokenizer.pad_token == tokenizer.eos_token
    assert tokenizer.padding_side == "left"


def test_loading_is_quiet_and_leaves_the_log_as_it_was(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = hf.utils.logging.get_verbosity(), hf.utils.logging.is_progress_bar_enabled()
    load(str(folder))
    assert capfd.readouterr() == ("", "")
    assert (hf.utils.logging.get_verbosity(), hf.utils.logging.is_progress_bar_enabled()) == before


def test_no_such_folder(tmp_path: Path) -> None:
    assert "there is no folder" in refused(tmp_path / "nothing")
    assert "there is no folder" in refused("./nothing")
    assert "there is no folder ''" in refused("")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    assert "no config.json" in refused(tmp_path)


def test_a_file(folder: Path) -> None:
    assert "is a file" in refused(folder / "config.json")


def test_a_hub_that_cannot_be_reached() -> None:
    assert "the hub cannot be reached" in refused("nobody/nothing")


def test_a_hub_id_that_cannot_be() -> None:
    assert "neither a folder nor a hub id" in refused("no body")


def test_a_hub_that_has_no_such_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, timeout: float) -> None:
        raise huggingface_hub.errors.RepositoryNotFoundError.__new__(huggingface_hub.errors.RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "model_info", refuse)
    assert "the hub has no such model" in refused("nobody/nothing")


@pytest.mark.parametrize("reachable", [True, False])
def test_without_the_hub_only_this_machine_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, reachable: bool
) -> None:
    def answer(name: str, timeout: float) -> None:
        if not reachable:
            raise ConnectionError

    from_pretrained, asked = hf.AutoConfig.from_pretrained, []

    def from_folder(name: str, **options: object) -> hf.PreTrainedConfig:
        asked.append((name, options["local_files_only"]))
        return from_pretrained(folder, **options)

    monkeypatch.setattr(huggingface_hub, "model_info", answer)
    monkeypatch.setattr(hf.AutoConfig, "from_pretrained", from_folder)
    assert "the weights of 'some/body' cannot be loaded" in refused("some/body")
    assert asked[0] == ("some/body", not reachable)


def test_a_damaged_configuration(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "config.json' cannot be read: it is not JSON" in refused(folder)
    (folder / "config.json").write_text('{"model_type": "no such type"}')
    assert "the configuration of" in refused(folder)


def test_damaged_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "model.safetensors of" in refused(folder)
    weights.unlink()
    assert "has a config.json and no weights: model.safetensors is missing" in refused(folder)


def test_weights_that_lack_a_tensor_are_not_filled_with_random_ones(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert refused(folder).endswith("lack 1 tensors, such as model.norm.weight")


def test_a_model_that_is_no_causal_one(folder: Path) -> None:
    hf.BertForMaskedLM(hf.BertConfig(**SMALL)).save_pretrained(folder)
    assert "BertForMaskedLM, which is no causal language model" in refused(folder)


def test_a_folder_without_a_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "the tokenizer of" in refused(folder)


def test_dtype_and_device_are_checked() -> None:
    with pytest.raises(InputError, match="dtype='int8' is not allowed; allowed is one of auto, checkpoint, float32"):
        builtin(dtype="int8")
    with pytest.raises(InputError, match="device='nowhere' cannot be used here"):
        builtin(device="nowhere")


def test_positions_are_the_models() -> None:
    model = builtin()[0]
    require_positions(model, 4096, "length=4096")
    with pytest.raises(InputError, match=r"length=5000 takes 5000 tokens, which LlamaForCausalLM .* at most 4096"):
        require_positions(model, 5000, "length=5000")


def test_a_folder_that_only_pith_loads_comes_from_the_hub_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_info(name: str, timeout: float) -> None:
        raise ConnectionError

    packed = compress(load(str(folder)).model, "rtn(bits=4, group_size=8)")
    snapshot = tmp_path / "hub" / "models--somebody--smaller" / "snapshots" / "abc"
    packed.save_pretrained(snapshot)
    builtin()[1].save_pretrained(snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    monkeypatch.setattr(huggingface_hub, "model_info", no_info)
    for module in (huggingface_hub.constants, huggingface_hub.file_download, huggingface_hub._snapshot_download):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    monkeypatch.setattr(hf.utils.hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    loaded = load("somebody/smaller")
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(tokens).logits, packed(tokens).logits)
    assert loaded.name == "somebody/smaller"
    (snapshot / "pith.safetensors").unlink()
    assert "cannot be read" in refused("somebody/smaller")


def test_a_folder_that_only_pith_loads_goes_to_the_dtype_that_is_asked_for(folder: Path, tmp_path: Path) -> None:
    packed = compress(load(str(folder)).model, "rtn(bits=4, group_size=8)")
    packed.save_pretrained(tmp_path / "out")
    builtin()[1].save_pretrained(tmp_path / "out")
    assert load(str(tmp_path / "out")).model.dtype == torch.bfloat16
    assert load(str(tmp_path / "out"), dtype="float32").model.dtype == torch.float32
    assert not load(str(tmp_path / "out")).model.training
