"""A folder that is not a whole model says which file is missing and what to do, before any weight is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf

from pith.core import ModelError
from pith.models import builtin, load
from pith.models.files import require_vocabulary

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    hf.LlamaForCausalLM(hf.LlamaConfig(**shape, vocab_size=4096)).save_pretrained(folder)
    builtin()[1].save_pretrained(folder)
    return folder


def without(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def renamed(name: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).rename(folder / new)

    return change


def written(name: str, text: str, *removed: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        without(*removed)(folder)
        (folder / name).write_text(text)

    return change


def inside(place: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        files = [path for path in folder.iterdir() if path.is_file()]
        (folder / place).mkdir(parents=True)
        for path in files:
            path.rename(folder / place / path.name)

    return change


def linked(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(folder / "gone")

    return change


MODEL = ("config.json", "model.safetensors")
CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "configuration": (without("config.json"), "it has weights (model.safetensors) but no config.json; copy that"),
    "everything": (lambda folder: [path.unlink() for path in folder.iterdir()] and None, "it is empty"),
    "all but the tokenizer": (without(*MODEL), "it has no config.json, which save_pretrained writes"),
    "linked configuration": (linked("config.json"), "its config.json is a link to a file that is missing"),
    "adapter": (written("adapter_config.json", "{}", *MODEL), "merge the PEFT adapter into its model"),
    "checkpoint inside": (inside("checkpoint-5"), "its subfolders that have one: checkpoint-5"),
    "hub cache": (inside("snapshots/abc"), "snapshots/abc"),
    "diffusers": (written("model_index.json", "{}", *MODEL), "a pipeline of diffusers is not a language model"),
    "authors' format": (written("consolidated.00.pth", "x", *MODEL), "(consolidated.00.pth) are in the format of its"),
    "weights": (without("model.safetensors"), "model.safetensors is missing (or its parts with an index, or"),
    "linked weights": (linked("model.safetensors"), "model.safetensors' cannot be read: there is no such file"),
    "index": (
        renamed("model.safetensors", "model-00001-of-00002.safetensors"),
        "model.safetensors.index.json is missing, which says which of its 1 files",
    ),
    "cut off": (renamed("model.safetensors", "model.safetensors.part"), "is a download that was cut off"),
    "TensorFlow": (renamed("model.safetensors", "tf_model.h5"), "tf_model.h5 is in TensorFlow; allowed are model.saf"),
    "ONNX": (renamed("model.safetensors", "onnx/model.onnx"), "onnx/model.onnx is in ONNX; allowed are model.saf"),
    "another name": (renamed("model.safetensors", "w.safetensors"), "model.safetensors is missing; w.safetensors has"),
    "tokenizer": (without("tokenizer.json"), "tokenizer.json is missing, and so are tokenizer.model and vocab.json"),
    "merges": (written("vocab.json", "{}", "tokenizer.json"), "beside vocab.json merges.txt is missing"),
    "weights as a pointer": (written("model.safetensors", POINTER), "model.safetensors of "),
    "tokenizer as a pointer": (written("tokenizer.json", POINTER), "is a Git LFS pointer, not the file: run git lfs"),
    "configuration as a pointer": (written("config.json", POINTER), "config.json of "),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_is_named(whole: Path, tmp_path: Path, case: str) -> None:
    change, line = CASES[case]
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    change(folder)
    with pytest.raises(ModelError) as caught:
        load(str(folder))
    assert line in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    if "pointer" in case:
        assert "is a Git LFS pointer" in str(caught.value)


def test_tokenizers_of_bytes_need_no_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        require_vocabulary(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        require_vocabulary(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    require_vocabulary(tmp_path)
