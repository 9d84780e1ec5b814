"""What is predicted of methods on this machine, and what it was when it was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from statistics import median
from typing import Any

SAME = 0.05
"""A predicted ratio of times within this share of 1 is called no change."""


@dataclass(frozen=True)
class Machine:
    """What this machine reaches, measured.

    Attributes:
        copy: bytes per second of a plain copy, those read and those written together.
        matrix: floating-point operations per second of a large product of matrices, in the model's dtype.
        overhead: seconds of a decoding step beyond reading the weights that a token touches at the copy's bandwidth, in
            the dense model at the shortest length that was timed; None where those weights cannot be told.
    """

    copy: float
    matrix: float
    overhead: float | None


@dataclass(frozen=True)
class Forecast:
    """What a recipe is predicted to cost at one length.

    Attributes:
        length: tokens of the prompt.
        bytes: of the cache after the prompt, for the whole batch.
        prefill: seconds until the prompt is read.
        decode: seconds for each decoded token of every sequence.
        share, prefill_ratio, decode_ratio: the same to the dense model's.
        timed: whether this length itself was timed; else it follows from shorter ones.
    """

    length: int
    bytes: int
    prefill: float
    decode: float
    share: float = 1.0
    prefill_ratio: float = 1.0
    decode_ratio: float = 1.0
    timed: bool = True

    @property
    def slower(self) -> bool:
        """Whether reading the prompt or decoding would take longer, by more than what is called no change."""
        return max(self.prefill_ratio, self.decode_ratio) > 1 + SAME

    @property
    def faster(self) -> bool:
        """Whether one of the two would take less time, and none more."""
        return not self.slower and min(self.prefill_ratio, self.decode_ratio) < 1 - SAME

    @property
    def smaller(self) -> bool:
        """Whether fewer bytes would be held, by more than what is called no change."""
        return self.share < 1 - SAME


@dataclass(frozen=True)
class Predicted:
    """A recipe and its forecasts.

    Attributes:
        recipe: its text.
        forecasts: one a length, in the order of the lengths.
        pairs: timed runs beside dense ones, over all lengths.
        stopped: why longer texts were not timed, where that was not for want of time.
    """

    recipe: str
    forecasts: tuple[Forecast, ...]
    pairs: int
    stopped: str | None = None


@dataclass(frozen=True)
class Advice:
    """What was predicted for a model.

    Attributes:
        model: its name.
        batch: sequences that are read at once.
        lengths: tokens of the prompts, ascending.
        machine: what this machine reaches.
        dense: the dense model's forecasts; of each length, those of the recipes are relative to it.
        predicted: the recipes, the one that decodes fastest at the longest length first.
        refused: recipes that cannot be applied to the model, and why.
        late: recipes for which the time was too short.
        layers, of: how many layers stood for all, and how many there are.
        seconds: how long it took.
        notes: what the user must know, such as layers that were left alone.
        environment: versions, processor, threads, dtype, seed, commit.
    """

    model: str
    batch: int
    lengths: tuple[int, ...]
    machine: Machine
    dense: Predicted
    predicted: tuple[Predicted, ...]
    refused: dict[str, str]
    late: tuple[str, ...]
    layers: int
    of: int
    seconds: float
    notes: tuple[str, ...]
    environment: dict[str, Any]


@dataclass(frozen=True)
class Check:
    """A forecast beside what was measured on the whole model.

    Attributes:
        recipe: its text; "dense" is the model as it is.
        predicted, measured: of the same length.
    """

    recipe: str
    predicted: Forecast
    measured: Forecast

    def error(self, what: Callable[[Forecast], float]) -> float:
        """How far a predicted number is from the measured one, as a share of that; below 0 is too low."""
        return what(self.predicted) / what(self.measured) - 1


def median_error(checks: tuple[Check, ...], what: Callable[[Forecast], float]) -> float:
    """The median over checks of the error's size."""
    return median(abs(check.error(what)) for check in checks)


ERRORS: dict[str, Callable[[Forecast], float]] = {
    name: attrgetter(name) for name in ("bytes", "prefill", "decode", "prefill_ratio", "decode_ratio")
}
"""What a check compares."""
