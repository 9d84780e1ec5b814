"""The files of a model's folder, before Transformers reads them: whole, readable, and inside of the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from pith.core import ModelError
from pith.weights.folder import FILE

_OBJECTS = (
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
"""Files that hold a JSON object each, if they are there."""

_INDEX = "model.safetensors.index.json"
_LARGEST = 1 << 26
"""The most bytes of a JSON file: an index of a very large model takes about 10 MiB."""

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""The dtypes of safetensors in which weights that are not quantized are stored."""


def require_readable(folder: Path) -> None:
    """Raise in one line what is wrong with the files of a model's folder.

    Raises:
        ModelError: a file is damaged, cannot be read, is missing or lies outside of the folder; weights are stored in a
            dtype that holds no numbers between whole ones; or the folder holds an adapter beside the model.
    """
    said = {name: read_object(folder / name) for name in _OBJECTS if _exists(folder / name)}
    if _exists(folder / "adapter_config.json"):
        raise ModelError(
            f"{folder} holds a PEFT adapter (adapter_config.json); merge it into the model first (merge_and_unload) "
            "and save that"
        )
    quantized = said.get("config.json", {}).get("quantization_config") is not None
    for path in weight_files(folder):
        _require_opened(path)
        if path.suffix == ".safetensors" and path.name != FILE:
            _require_floats(path, quantized)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ModelError: it cannot be read, is too large, or holds no JSON object.
    """
    where = f"{path.name} of {path.parent}"
    try:
        if not path.is_file():
            raise ModelError(f"{where} is not a regular file")
        if (size := path.stat().st_size) > _LARGEST:
            raise ModelError(f"{where} has {size} bytes, which is too large; allowed are {_LARGEST}")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{where} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested too deeply
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:80]
        raise ModelError(f"{where} is damaged: {reason}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{where} is damaged: it holds a {type(found).__name__}, not a JSON object")
    return found


def weight_files(folder: Path) -> list[Path]:
    """Return the files with the weights that Transformers would load: one, or those that an index names.

    Raises:
        ModelError: the index is damaged, or names a file that is missing or outside of the folder.
    """
    if _exists(folder / FILE):  # no other reader but Pith knows this name
        return [folder / FILE]
    for name in ("model.safetensors", "pytorch_model.bin"):
        if _exists(folder / name):
            return [folder / name]
        index = folder / (_INDEX if name == "model.safetensors" else "pytorch_model.bin.index.json")
        if _exists(index):
            return [folder / shard for shard in _shards(index)]
    return []


def _shards(index: Path) -> list[str]:
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{index.name} of {index.parent} is damaged: it has no weight_map of names to files")
    shards = sorted(set(names.values()))
    for shard in shards:
        if Path(shard).is_absolute() or ".." in Path(shard).parts:
            raise ModelError(f"{index.name} of {index.parent} names {shard[:60]!r}, which is outside of the folder")
        if not _exists(index.parent / shard):
            raise ModelError(f"{index.parent} lacks {shard[:60]!r}, one of {len(shards)} files with weights")
    return shards


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ModelError(f"{path.name[:60]} of {path.parent} cannot be read: {error.strerror or error}") from None
    return True


def _require_opened(path: Path) -> None:
    """safetensors says of a file that it may not read that there is none."""
    try:
        if not path.is_file():
            raise ModelError(f"{path.name} of {path.parent} is not a regular file, or a link to none")
        with path.open("rb"):
            pass
    except OSError as error:
        raise ModelError(f"{path.name} of {path.parent} cannot be read: {error.strerror or error}") from None


def _require_floats(path: Path, quantized: bool) -> None:
    try:
        with safe_open(path, "pt") as file:
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except Exception as error:  # safetensors' errors have no common class with those of a damaged header
        raise ModelError(f"{path.name} of {path.parent} is damaged: {str(error)[:100]}") from None
    for name, dtype in dtypes.items():
        if not quantized and name.endswith((".weight", ".bias")) and dtype not in _FLOATS:
            raise ModelError(
                f"{name} in {path.name} of {path.parent} is stored as {dtype}, and the configuration says nothing of "
                f"quantization; allowed are {', '.join(sorted(_FLOATS))}"
            )
