"""Making a smaller model for `pith apply`, and telling what became of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import torch

from pith.cli.apply import Options
from pith.cli.command import say, source
from pith.cli.pulse import TOLD, Pulse, left
from pith.cli.screen import Screen
from pith.cli.starting import model_line
from pith.core import InputError, Recipe, resolve_path
from pith.core.folders import unfinished_folder
from pith.core.words import bytes_
from pith.measure.peak import resident_peak
from pith.models import compressed_tensors, load
from pith.models.export import REST, Kind, export, require_format, require_free, require_possible
from pith.models.smaller import made
from pith.report.words import listed, percent
from pith.study import read_recipe
from pith.weights import PackedLinear, linears
from pith.weights.size import weight_bytes

_TRANSFORMERS = 'transformers.AutoModelForCausalLM.from_pretrained("{}")'
READERS: dict[Kind, str] = {
    "plain": _TRANSFORMERS,
    "compressed-tensors": _TRANSFORMERS,
    "gguf": 'transformers.AutoModelForCausalLM.from_pretrained("{}", gguf_file="model.gguf")',
    "pith": 'pith.load("{}").model',
}
"""How a folder of each format is read."""

WEIGHTS = ("*.safetensors", "*.gguf")
"""The files of a folder that hold weights."""


@dataclass(frozen=True)
class Outcome:
    """What `pith apply` did.

    Attributes:
        folder: that was made.
        format: in which the model was written.
        apart: how far the logits of what was read back lie from the model's, as a share of their length.
        model: what was asked for.
        recipe: the methods that changed the weights, with the group size that was taken.
        rest: the part of the recipe that acts later and stands in a file beside the model; None where none does.
        read_with: the call that reads the folder.
        dense_bytes, bytes: of the weights in memory, before and after.
        disk_bytes: of the files with the weights.
        peak_bytes: the most main memory that the process held.
        device_peak_bytes: the same of the accelerator's, if there is one.
        left: the linear layers that were not packed, where others were.
        notes: what methods said.
    """

    folder: str
    format: Kind
    apart: float
    model: str
    recipe: str
    rest: str | None
    read_with: str
    dense_bytes: int
    bytes: int
    disk_bytes: int
    peak_bytes: int
    device_peak_bytes: int | None
    left: tuple[str, ...]
    notes: tuple[str, ...]


class Watch:
    """Bars for the methods on stderr; where that is no terminal, a line for each tenth of a method's work.

    Args:
        recipe: the methods.
        start: the line that says what is made where; said before the first work.
    """

    def __init__(self, recipe: Recipe, start: str = "") -> None:
        self._start, self._now, self._begun_at, self._begun_with = start, "", 0.0, 0
        self._waiting = [method.name for method in recipe]
        self._total, self._tenth = len(self._waiting), -1
        self._screen = Screen("methods", self._total)
        self._pulse = Pulse(lambda: self._now, self._screen.draw if self._screen.is_terminal else None)

    def __enter__(self) -> Watch:
        self._screen.start()
        self._pulse.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pulse.stop()
        self._screen.stop()

    def progress(self, what: str, done: int, total: int) -> None:
        """A method has come so far."""
        if self._start:
            say(self._start)
        self._start = ""
        if what in self._waiting:
            self._waiting = self._waiting[self._waiting.index(what) + 1 :]
            self._screen.whole(self._total - len(self._waiting) - 1, self._total)
            self._screen.begins(what)
            self._tenth = -1
        if done <= self._begun_with or not self._begun_at:
            self._begun_at, self._begun_with = time.monotonic(), done
        self._screen.note = ends = self._estimate(done, total)
        self._now = f"{what}: {done}/{total}" + (f"; {ends} for {what}" if ends else "")
        self._screen.part(what, done, total)
        tenth = 10 * done // max(total, 1)
        if tenth != self._tenth and not self._screen.is_terminal:
            self._pulse.said()
            say(self._now)
        self._tenth = tenth

    def _estimate(self, done: int, total: int) -> str:
        """How long the method still takes, if its steps go on as they did; a few seconds are not told."""
        new = done - self._begun_with
        seconds = (time.monotonic() - self._begun_at) / new * (total - done) if new > 0 else 0.0
        return left(seconds) if seconds >= TOLD else ""


def make(options: Options) -> Outcome:
    """Makes a model smaller, and writes it.

    Raises:
        InputError: the recipe changes no weights, or the folder or the format cannot be.
        ModelError: a method or the format cannot take the model.
    """
    recipe, out = read_recipe(options.recipe), resolve_path(options.out)
    if not len(recipe.weights):
        raise InputError(f"{recipe} changes no weights, so that there is nothing to write; see pith generate --recipe")
    require_free(out)
    require_format(options.format)
    with Pulse(lambda: f"loading {options.model}"):
        loaded = replace(load(options.model, options.dtype), source=source(options))
    require_possible(loaded.model, recipe, options.format, loaded.tokenizer)
    methods = " + ".join(method.name for method in recipe.weights)
    start = f"{model_line(loaded)}\nto make: {methods}, then written to {options.out} and read back"
    dense_bytes, tokenizer = weight_bytes(loaded.model), loaded.tokenizer
    with unfinished_folder(out.with_name(f"{out.name}.unfinished")) as work:
        with Watch(recipe.weights, start) as watch:
            found = made(loaded, recipe.weights, watch.progress, work)
        for note in found.notes:
            say(f"note: {note}")
        del loaded  # what only the dense model holds makes room for reading back
        with Pulse(lambda: f"writing {options.out} and reading it back"):
            written = export(found.model, tokenizer, out, options.format, recipe.rest if len(recipe.rest) else None)
    kind = written.format
    if kind == "pith" and options.format == "auto":
        say(f"note: only pith.load reads this folder: {compressed_tensors.refusal(found.model)}")
    return Outcome(
        folder=str(options.out), format=kind, apart=written.apart, model=options.model,
        recipe=_resolved(found.model, recipe), rest=str(recipe.rest) if len(recipe.rest) else None,
        read_with=READERS[kind].format(options.out),
        dense_bytes=dense_bytes, bytes=weight_bytes(found.model),
        disk_bytes=sum(file.stat().st_size for end in WEIGHTS for file in out.glob(end)), peak_bytes=resident_peak(),
        device_peak_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        left=_left(found.model), notes=found.notes,
    )  # fmt: skip


def told(outcome: Outcome) -> list[str]:
    """The outcome in lines for a person."""
    share = percent(outcome.bytes / outcome.dense_bytes)
    peak = f"{bytes_(outcome.peak_bytes)} of memory"
    if outcome.device_peak_bytes:
        peak += f" and {bytes_(outcome.device_peak_bytes)} of the accelerator's"
    logits = f"logits {percent(outcome.apart)} apart" if outcome.apart > 1e-4 else "the same logits"
    lines = [
        f"{outcome.folder}: {outcome.model} with {outcome.recipe}, as {outcome.format}; read back: {logits}",
        f"weights: {bytes_(outcome.dense_bytes)} before, {bytes_(outcome.bytes)} now ({share}), "
        f"{bytes_(outcome.disk_bytes)} on disk; at most {peak} taken",
    ]
    if outcome.left:
        shown = listed([*outcome.left[:3], *([f"{len(outcome.left) - 3} more"] if len(outcome.left) > 3 else [])])
        lines.append(f"linear layers left as they are: {shown}")
    if outcome.rest:
        lines.append(f"{outcome.rest} acts later: pith generate {outcome.folder} --recipe {outcome.folder}/{REST}")
    lines.append(f"to read it: {outcome.read_with}")
    if outcome.format in ("compressed-tensors", "gguf"):
        lines.append("Transformers decodes these weights to use them: in memory only --format pith keeps them packed")
    return lines


def _resolved(model: Any, recipe: Recipe) -> str:
    """Return the methods as the model records them, with numbers for what is "auto" in the recipe."""
    return " + ".join(model.config.pith_recipe[-len(recipe.weights) :])


def _left(model: Any) -> tuple[str, ...]:
    """The linear layers that are not packed, where others are."""
    packed = any(isinstance(one, PackedLinear) for one in model.modules())
    return tuple(name for name, _ in linears(model)) if packed else ()
