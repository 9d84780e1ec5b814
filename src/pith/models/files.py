"""Saying which file of a model's folder is missing, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pith.core import ModelError, error_line
from pith.core.files import read_json
from pith.models.checkpoint import weight_files
from pith.weights.folder import FILE, is_pith

_VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
    "sentencepiece.model", "tekken.json", "bpe.codes", "vocab.bpe", "qwen.tiktoken", "tokenizer.tiktoken",
)  # fmt: skip
"""Files that hold the words of a tokenizer; one of them must be there."""

_WITHOUT_VOCABULARY = ("ByT5", "Canine", "Perceiver")
"""How the names of tokenizer classes begin that work on bytes or characters, and need no such file."""

_FOREIGN = {
    "tf_model.h5": "TensorFlow",
    "flax_model.msgpack": "Flax",
    "consolidated.*": "the format of its authors",
    "*.onnx": "ONNX",
    "onnx/*.onnx": "ONNX",
    "*.ot": "Rust",
}
"""Files with weights that neither Pith nor Transformers reads."""

_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_AGAIN = "download the folder again, or write it with model.save_pretrained"


def gguf_in(folder: Path) -> str | None:
    """Return the GGUF file of a folder that holds no Transformers checkpoint; None if it holds one, or no GGUF file.

    Raises:
        ModelError: there are several; the message names them.
    """
    found = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".gguf" and path.is_file())
    if not found or ((folder / "config.json").is_file() and weight_files(folder)):
        return None
    if len(found) == 1:
        return found[0]
    if all(_SPLIT.fullmatch(name) for name in found):
        require_one_part(folder / found[0])
    raise ModelError(
        f"{folder} holds {len(found)} GGUF files ({_listed(found)}); name one of them, such as {folder / found[0]}"
    )


def require_one_part(path: Path) -> None:
    """Raise if a GGUF file is one part of a model that was split.

    Raises:
        ModelError: it is; the message names the command that joins the parts.
    """
    if (part := _SPLIT.fullmatch(path.name)) and int(part[3]) > 1:
        raise ModelError(
            f"{path.name} is part {int(part[2])} of {int(part[3])} of a split GGUF file, which is not read; "
            f"join the parts with llama-gguf-split --merge {part[1]}-00001-of-{part[3]}.gguf {part[1]}.gguf"
        )


def require_weights(folder: Path) -> None:
    """Raise if a folder lacks a configuration, weights or a tokenizer, before any of them is read.

    Raises:
        ModelError: the message says which file is missing, and what to do.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"the folder {folder} holds no model: {_without_config(folder)}")
    if not weight_files(folder):
        raise ModelError(f"{folder} has a config.json and no weights: {_without_weights(folder)}")
    if is_pith(folder) and not (folder / FILE).exists():
        raise ModelError(f"{folder} lacks {FILE}, the weights of a model that Pith packed; write it again")


def require_vocabulary(folder: Path) -> None:
    """Raise if a folder has no file with the words of a tokenizer.

    Raises:
        ModelError: it has none.
    """
    if any((folder / name).exists() for name in _VOCABULARIES):
        return
    try:
        kind = read_json(folder / "tokenizer_config.json", error=ModelError).get("tokenizer_class")
    except ModelError:
        kind = None
    if not str(kind).startswith(_WITHOUT_VOCABULARY):
        raise ModelError(
            f"the tokenizer of {folder} cannot be loaded: tokenizer.json is missing, and so are tokenizer.model and "
            "vocab.json; copy it from the original model, or write it with tokenizer.save_pretrained"
        )


def tokenizer_reason(folder: Path | None, error: Exception) -> str:
    """Return why Transformers could not make a tokenizer of the files of a folder, in one line."""
    if folder and (folder / "vocab.json").exists() and not (folder / "tokenizer.json").exists():
        for name in ("merges.txt", "tokenizer_config.json"):
            if not (folder / name).exists():
                return f"beside vocab.json {name} is missing; copy it from the original model"
    line = error_line(error)
    return f"{line} {error_line(error, last=True)}"[:200] if line.endswith(":") else line


def _without_config(folder: Path) -> str:
    """Return what to say of a folder that has no config.json."""
    if (folder / "config.json").is_symlink():
        return "its config.json is a link to a file that is missing; download the folder again"
    inside = sorted(path.parent for path in folder.glob("*/config.json"))
    snapshots = sorted(path.parent for path in folder.glob("snapshots/*/config.json"))
    if (folder / "adapter_config.json").exists():
        return (
            "it has an adapter_config.json and no config.json; merge the PEFT adapter into its model (merge_and_unload)"
        )
    if snapshots:
        return f"it has no config.json; the model is in {snapshots[-1]}"
    if (folder / "model_index.json").exists():
        return "it has no config.json, but a model_index.json: a pipeline of diffusers is not a language model"
    if inside:
        return f"it has no config.json; its subfolders that have one: {_listed(path.name for path in inside)}"
    if foreign := _foreign(folder):
        return f"it has no config.json, and its weights ({foreign[0]}) are in {foreign[1]}; convert it to Transformers"
    if weights := [path.name for path in sorted(folder.glob("*.safetensors"))] or weight_files(folder):
        return f"it has weights ({weights[0]}) but no config.json; copy that from the original model"
    if not any(folder.iterdir()):
        return "it is empty (no config.json)"
    return "it has no config.json, which save_pretrained writes"


def _without_weights(folder: Path) -> str:
    """Return what to say of a folder that has a config.json and no weights that Transformers would find."""
    parts = sorted(path.name for path in folder.glob("*-of-*.safetensors"))
    if parts:
        return (
            f"model.safetensors.index.json is missing, which says which of its {len(parts)} files holds what "
            f"({parts[0]}, ...); download that file"
        )
    if cut := [
        path.name for path in sorted(folder.iterdir()) if path.suffix in (".incomplete", ".part", ".crdownload")
    ]:
        return f"{cut[0]} is a download that was cut off; {_AGAIN}"
    if foreign := _foreign(folder):
        return (
            f"{foreign[0]} is in {foreign[1]}; allowed are model.safetensors, its parts with an index, and "
            "pytorch_model.bin"
        )
    if others := sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pt")):
        return f"model.safetensors is missing; {others[0]} has another name, under which nothing looks for weights"
    return f"model.safetensors is missing (or its parts with an index, or pytorch_model.bin); {_AGAIN}"


def _foreign(folder: Path) -> tuple[str, str] | None:
    """Return a file with weights that cannot be read, and the name of its format."""
    for pattern, kind in _FOREIGN.items():
        for path in sorted(folder.glob(pattern)):
            return path.relative_to(folder).as_posix(), kind
    return None


def _listed(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
