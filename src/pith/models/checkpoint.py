"""The files of a model's folder, before Transformers reads them: whole, readable, and inside of the folder."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open

from pith.core import ModelError
from pith.core.files import open_file, read_json
from pith.weights.folder import FILE

_OBJECTS = (
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
"""Files that hold a JSON object each, if they are there."""

_INDEX = "model.safetensors.index.json"
_INDEX_BYTES = 64 * 2**20
"""Bytes of an index, at most; that of a very large model takes about 10 MiB."""

_POINTER = b"version https://git-lfs"
"""How the small text begins that Git leaves in the place of a large file."""

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""The dtypes of safetensors in which weights that are not quantized are stored."""


def require_readable(folder: Path) -> None:
    """Raise in one line what is wrong with the files of a model's folder.

    Raises:
        ModelError: a file is damaged, cannot be read, is missing or lies outside of the folder; weights are stored in a
            dtype that holds no numbers between whole ones; or the folder holds an adapter beside the model.
    """
    for name in (*_OBJECTS, "tokenizer.json", "tokenizer.model"):
        require_no_pointer(folder / name)
    said = {name: read_json(folder / name, error=ModelError) for name in _OBJECTS if _exists(folder / name)}
    if _exists(folder / "adapter_config.json"):
        raise ModelError(
            f"{folder} holds a PEFT adapter (adapter_config.json); merge it into the model first (merge_and_unload) "
            "and save that"
        )
    config = said.get("config.json", {})
    quantized = any(
        isinstance(one, dict) and one.get("quantization_config") for one in (config, config.get("text_config"))
    )
    for path in weight_files(folder):
        require_no_pointer(path)
        open_file(path, limit=None, error=ModelError).close()  # safetensors calls a file that it may not read missing
        if path.suffix == ".safetensors" and path.name != FILE:
            _require_floats(path, quantized)


def require_no_pointer(path: Path) -> None:
    """Raise if a file is what Git leaves in the place of a large file that was not downloaded.

    Raises:
        ModelError: it is.
    """
    try:
        with path.open("rb") as file:
            found = file.read(len(_POINTER))
    except OSError:  # whoever reads it next says what is wrong
        return
    if found == _POINTER:
        raise ModelError(f"{path.name} of {path.parent} is a Git LFS pointer, not the file: run git lfs pull there")


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
    names = read_json(index, limit=_INDEX_BYTES, error=ModelError).get("weight_map")
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
