"""Reading GGUF files with Transformers' own loader: every weight is dequantized into float32."""

from __future__ import annotations

import functools
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any

from pith.core import ModelError, error_line
from pith.models.checkpoint import require_no_pointer
from pith.models.files import require_one_part
from pith.models.locate import Place

_MAGIC = b"GGUF"
_LOCK = RLock()


@contextmanager
def opened(place: Place) -> Iterator[Place]:
    """Yield a place whose folder holds nothing but the GGUF file; other places as they are.

    A GGUF file brings its own configuration, tokenizer and chat template. Transformers would mix them with those that
    it finds in the same folder, which may be another model's.

    Raises:
        ModelError: the file cannot be read, is damaged or incomplete, or lacks a tokenizer.
    """
    if place.gguf is None:
        yield place
        return
    path = Path(place.source) / place.gguf
    with _read_once(), tempfile.TemporaryDirectory(prefix="pith-gguf-") as alone:
        require_gguf(path)
        os.symlink(path.absolute(), Path(alone) / path.name)
        yield replace(place, source=alone)


def name_after(path: str, model: Any, tokenizer: Any) -> None:
    """Let a model and a tokenizer that were read alone say where their file really is, and the model what it is."""
    model.config._name_or_path = model.name_or_path = tokenizer.name_or_path = path
    if model.config.architectures is None:  # a checkpoint says so, a GGUF file does not
        model.config.architectures = [type(model).__name__]


def require_gguf(path: Path) -> None:
    """Raise in one line why a file cannot be read as GGUF.

    Raises:
        ModelError: a library is missing, or the file is not GGUF, a part of one, cut off, or has no tokenizer.
    """
    for library in ("gguf", "accelerate"):
        if find_spec(library) is None:
            raise ModelError(f"GGUF files need the library {library}: pip install gguf accelerate")
    import gguf

    require_no_pointer(path)
    require_one_part(path)
    try:
        with path.open("rb") as file:
            begin = file.read(len(_MAGIC))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    if begin != _MAGIC:
        raise ModelError(
            f"{path} is not GGUF: it does not begin with these letters. If it is a piece of a larger file, join the "
            "pieces in order first (cat piece1 piece2 > model.gguf)"
        )
    try:
        fields = gguf.GGUFReader(str(path)).fields
    except Exception as error:  # a foreign file may be wrong in any way; the user must learn which one it is
        raise ModelError(
            f"{path} is damaged or cut off ({error_line(error, most=60)}); it has {path.stat().st_size} bytes: "
            "compare that with its source, and download it again"
        ) from None
    if "tokenizer.ggml.tokens" not in fields:
        raise ModelError(f"{path} holds no tokenizer (tokenizer.ggml.tokens); name a GGUF file of a whole model")


@contextmanager
def no_bar(place: Place) -> Iterator[None]:
    """Keep the bar that Transformers draws for every GGUF file, and lets nobody turn off, out of stderr."""
    with redirect_stderr(io.StringIO()) if place.gguf else nullcontext():
        yield


def model_options(place: Place) -> dict[str, Any]:
    """Return what the weights of a place need in `from_pretrained` beyond `Place.options`."""
    if place.gguf is None:
        return {}
    from transformers import GgufConfig

    return {"quantization_config": GgufConfig(dequantize=True)}


@contextmanager
def _read_once() -> Iterator[None]:
    """Let each GGUF file be parsed once while the block runs, and each table of names be made once.

    Transformers parses the whole vocabulary for the configuration, for the tokenizer and for the weights, and makes the
    table of tensor names for every module of the model: two thirds of the time. Both depend on their arguments only.
    """
    if find_spec("gguf") is None:  # said by `require_gguf`
        yield
        return
    gguf: Any = import_module("gguf")
    with _LOCK:  # so that no thread takes another's for the originals
        reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
        gguf.GGUFReader, gguf.get_tensor_name_map = functools.cache(reader), functools.cache(names)
        try:
            yield
        finally:
            gguf.GGUFReader, gguf.get_tensor_name_map = reader, names
