"""The texts that methods read before they change weights."""

from __future__ import annotations

import hashlib
import secrets
import sysconfig
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pith.core import InputError, Method, PithWarning, StoreError, read_text, shown
from pith.texts import calibration_prose, language_of
from pith.weights.duplicate import aligned
from pith.weights.encoding import beginning, encode
from pith.weights.model_hash import model_hash, tensors_hash
from pith.weights.writing import write_errors

AUTO, PROSE, PYTHON = "auto", "prose", "python"
"""The names of texts: what fits the model (Python for the built-in one, else prose), English prose out of a book in the
public domain, and sources of Python's library with their documentation.
"""

_SOURCES = (
    "argparse", "bisect", "calendar", "csv", "dataclasses", "datetime", "difflib", "doctest", "enum", "fractions",
    "ftplib", "functools", "heapq", "inspect", "logging/__init__", "optparse", "pathlib", "pickle", "queue", "random",
    "shelve", "shutil", "smtplib", "socket", "statistics", "string", "subprocess", "tarfile", "textwrap", "threading",
    "traceback", "turtle", "types", "typing", "unittest/case", "uuid", "weakref", "zipfile",
)  # fmt: skip

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True)
class Calibration:
    """Token sequences of equal length, without padding, and who is told how the work on them goes on.

    Attributes:
        tokens: the sequences.
        progress: told how a method goes on.
        folder: where unfinished work is kept, so that a method that was stopped goes on from there; None keeps none.
        what: the method that is at work, and a name of all that its work depends on; set by `stage`.
    """

    tokens: Int[Tensor, "sequence token"]
    progress: Progress | None = None
    folder: Path | None = None
    what: tuple[str, str] = ("", "")

    @classmethod
    def none(cls) -> Calibration:
        """For methods that read nothing."""
        return cls(torch.zeros(0, 0, dtype=torch.int64))

    @property
    def batches(self) -> list[Int[Tensor, "batch token"]]:
        """The sequences, as many at once as make 2048 tokens or less, and at least one."""
        return list(torch.split(self.tokens, max(2048 // max(self.tokens.shape[1], 1), 1)))

    def stage(self, method: Method, model: Any) -> Calibration:
        """The calibration for one method on one model: unfinished work of another is not found."""
        name = ""
        if self.folder is not None:
            name = hashlib.sha256(f"{method} {model_hash(model)} {self.tokens.tolist()}".encode()).hexdigest()[:16]
        return replace(self, what=(method.name, name))

    def told(self, done: int, total: int) -> None:
        """Says how far the method that is at work has come."""
        if self.progress:
            self.progress(self.what[0], done, total)

    def recall(self, key: str) -> dict[str, Tensor] | None:
        """What `remember` kept under that key for this very work; None where there is nothing."""
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                said = (file.metadata() or {}).get("sha256")
                # a file's tensors may begin at any address, and kernels round differently by that: see `aligned`
                tensors = {name: aligned(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        except (SafetensorError, OSError):
            said, tensors = None, {}
        if said is None or said != tensors_hash(tensors):
            warnings.warn(f"{shown(str(path), 120)} is damaged; that step is done again", PithWarning, stacklevel=2)
            return None
        return tensors

    def remember(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep the result of one step with its hash, so that it need not be done again.

        Raises:
            StoreError: it cannot be written; nothing of it is left.
        """
        if path := self._path(key):
            held = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
            unfinished = path.with_name(f"{key}.{secrets.token_hex(8)}.part")
            try:
                with write_errors(path, StoreError):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    save_file(held, unfinished, metadata={"sha256": tensors_hash(held)})
                    unfinished.replace(path)
            finally:
                with suppress(OSError):
                    unfinished.unlink(missing_ok=True)

    def _path(self, key: str) -> Path | None:
        return self.folder / self.what[1] / f"{key}.safetensors" if self.folder is not None else None


@dataclass(frozen=True)
class Source:
    """Where a calibration comes from: what a command is told.

    Attributes:
        text: "auto", "prose", "python" (see `calibration`), or the path of a text file.
        sequences: how many sequences are read.
        length: tokens of each.
    """

    text: str = AUTO
    sequences: int = 64
    length: int = 512

    def identity(self, tokenizer: Any) -> dict[str, Any]:
        """What a calibration from here depends on beside the tokenizer, as plain data; where the text lies is no part.

        Args:
            tokenizer: the model's, by which "auto" chooses.

        Raises:
            InputError: the text cannot be read.
        """
        text = hashlib.sha256(_read(self.text, tokenizer).encode()).hexdigest()[:16]
        return {"text": text, "sequences": self.sequences, "length": self.length}

    def calibration(self, tokenizer: Any, progress: Progress | None = None, folder: Path | None = None) -> Calibration:
        """The calibration that this source gives with a tokenizer; see `calibration`."""
        return calibration(
            tokenizer, self.text, sequences=self.sequences, length=self.length, progress=progress, folder=folder
        )


def calibration(
    tokenizer: Any,
    text: str | Path = AUTO,
    *,
    sequences: int = 64,
    length: int = 512,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Calibration:
    """Sequences from a text, at equal distances over all of it; the same ones every time.

    Args:
        tokenizer: the model's.
        text: the path of a text file, "prose" (English prose out of a book in the public domain), "python" (sources of
            Python's library, with their documentation), or "auto": Python for the built-in model, which was trained on
            it, and prose for any other.
        sequences: how many.
        length: tokens of each, with those that begin a sequence, if the tokenizer adds any.
        progress: told how a method goes on.
        folder: where unfinished work is kept.

    Raises:
        InputError: the text cannot be read, or is too short; or a number makes no sense.
    """
    for name, value, least in (("sequences", sequences, 1), ("length", length, 2)):
        if value < least:
            raise InputError(f"{name}={value} makes no sense; allowed is {least} or more")
    begin, tokens = list(beginning(tokenizer)), encode(tokenizer, _read(text, tokenizer), begin=False)
    size = length - len(begin)
    if size < 1:
        raise InputError(
            f"length={length} is too short; allowed is more than the {len(begin)} tokens that begin a sequence"
        )
    if len(tokens) < sequences * size:
        raise InputError(
            f"calibration of {sequences} sequences of {length} tokens needs {sequences * size} tokens, and the text "
            f"{shown(str(text))} has {len(tokens)}; allowed are at most {len(tokens) // size} sequences of that length"
        )
    stride = len(tokens) // sequences
    rows = [begin + tokens[index * stride : index * stride + size] for index in range(sequences)]
    return Calibration(torch.tensor(rows), progress, folder)


def of_tokens(rows: list[list[int]], progress: Progress | None = None, folder: Path | None = None) -> Calibration:
    """A calibration of sequences that are tokens already.

    Raises:
        InputError: there are none, or their lengths differ.
    """
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise InputError(f"calibration sequences of {sorted(lengths)} tokens; allowed are several of one length")
    return Calibration(torch.tensor(rows), progress, folder)


def _read(text: str | Path, tokenizer: Any) -> str:
    if text == AUTO:
        text = PYTHON if language_of(tokenizer) == "pith" else PROSE
    if text == PROSE:
        return calibration_prose()
    if text == PYTHON:
        library = Path(sysconfig.get_paths()["stdlib"])
        files = [library / f"{name}.py" for name in _SOURCES]
        return "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    return read_text(text, label="calibration text ")
