"""A measurement: what one recipe did to one model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pith.tasks.base import Quality

Piece = TypeVar("Piece", "Costs", "Answer")


EVEN = 0.1
"""A ratio of times that surely lies within this share of 1 is said to be about as fast as dense."""


@dataclass(frozen=True)
class Speed:
    """Times of interleaved runs (subject, dense, subject, dense, ...) in one process; medians, in seconds.

    A ratio's interval is that of the median by order statistics: of n pairs, the k-th smallest and the k-th largest
    ratio, with the largest k for which each end is passed with a probability of at most 2.5%. Nothing is assumed of how
    a machine's noise is distributed, and one disturbed pair in nine moves no end. Fewer than six pairs know no such k:
    there it goes from the smallest ratio to the largest (94% with five pairs), so that a few pairs promise little.

    Attributes:
        prefill, dense_prefill: seconds until the prompt is read.
        decode, dense_decode: seconds for each decoded token.
        prefill_ratio, decode_ratio: the median over pairs of subject divided by dense; below 1 is faster than dense.
        spread, prefill_spread: how far the farther end of the interval lies from the decode ratio and from the prefill
            ratio, as a share of it.
        runs: the number of pairs; see `held`.
        crowded: whether other work took processors away meanwhile, or PyTorch used more threads than there are
            processors: then no ratio supports a conclusion, whatever its spread.
    """

    prefill: float
    dense_prefill: float
    prefill_ratio: float
    decode: float
    dense_decode: float
    decode_ratio: float
    spread: float
    runs: int
    prefill_spread: float = 0.0
    crowded: bool = False

    @property
    def held(self) -> float:
        """The probability with which the intervals hold the true median: 0.75 with three pairs, 0.94 with five."""
        return 1 - 0.5 ** (self.runs - 1) if self.runs < 6 else 0.95

    @property
    def decode_tells(self) -> bool:
        """Whether the decode ratio supports a conclusion: faster than dense, slower, or about as fast.

        Its interval must leave out 1, or lie within 10% of 1. Where it does neither, the spread makes it worthless.
        """
        return not self.crowded and tells(self.decode_ratio, self.spread)

    @property
    def prefill_tells(self) -> bool:
        """The same of the prefill ratio."""
        return not self.crowded and tells(self.prefill_ratio, self.prefill_spread)


def tells(ratio: float, spread: float) -> bool:
    """Whether a ratio with this spread, a share of it, is known to be below 1, above 1, or within 10% of 1."""
    low, high = ratio * (1 - spread), ratio * (1 + spread)
    return high < 1 or low > 1 or (low >= 1 - EVEN and high <= 1 + EVEN)


@dataclass(frozen=True)
class CacheBytes:
    """Bytes that the cache's tensors hold (`untyped_storage().nbytes()`, each storage once), for one sequence.

    Attributes:
        prefill, dense_prefill: after the prompt.
        decoded, dense_decoded: after the decoded tokens.
        tokens: the prompt's length.
        claimed: the share of the dense cache that the recipe says it holds after the prompt. Where it changes weights
            it is what the cache of the changed model holds in plain Transformers, times what the rest of it says.
    """

    prefill: int
    dense_prefill: int
    decoded: int
    dense_decoded: int
    tokens: int
    claimed: float

    @property
    def measured(self) -> float:
        """The share of the dense cache that is really held after the prompt."""
        return self.prefill / self.dense_prefill


@dataclass(frozen=True)
class Memory:
    """Bytes that the process needs while the prompt is read and continued.

    Attributes:
        weights: what the parameters and buffers of the recipe's model hold after a forward, each storage once.
        peak, dense_peak: the most bytes at any moment, weights included: on CUDA the allocator's peak, on the processor
            the resident peak of a fresh process. None where nobody asked for it.
        dense_weights: what those of the dense model hold; None where the recipe changes none, and they are the same.
    """

    weights: int
    peak: int | None = None
    dense_peak: int | None = None
    dense_weights: int | None = None

    @property
    def share(self) -> float:
        """The share of the dense model's weights that is held."""
        return self.weights / self.dense_weights if self.dense_weights else 1.0


@dataclass(frozen=True)
class Bandwidth:
    """How far decoding is from what the memory allows.

    Attributes:
        read: bytes that must be read for a decoded token: the weights that a token touches and what its query reads
            of the cache. None where that cannot be told.
        achieved: `read` for each second of decoding; bytes per second.
        copy: what a plain copy of a large tensor reaches on this machine, read and written bytes together; bytes per
            second.
    """

    read: int | None
    achieved: float | None
    copy: float


@dataclass(frozen=True)
class Costs:
    """What one recipe costs on one model: a piece of a measurement, taken at once and stored at once.

    Attributes:
        bytes, speed, memory, bandwidth: what was measured; no speed where nothing was timed.
        notes: what the user must know, such as layers that were left alone.
        environment: versions, processor, threads, dtype, seed, commit, settings.
    """

    bytes: CacheBytes
    speed: Speed | None
    memory: Memory
    bandwidth: Bandwidth | None
    notes: tuple[str, ...]
    environment: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What one task found of one recipe: the other kind of piece.

    Attributes:
        quality: the result.
        notes, environment: as in `Costs`.
    """

    quality: Quality
    notes: tuple[str, ...]
    environment: dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """What one recipe did to one model, put together from its pieces.

    Attributes:
        model: the model's name, as the user gave it.
        recipe: the recipe's text; "dense" is the model in plain Transformers.
        costs: bytes and seconds.
        answers: each task's result, by the task's text.
    """

    model: str
    recipe: str
    costs: Costs
    answers: dict[str, Answer]

    @property
    def bytes(self) -> CacheBytes:
        """What the cache held."""
        return self.costs.bytes

    @property
    def speed(self) -> Speed | None:
        """How long it took; None where nothing was timed."""
        return self.costs.speed

    @property
    def quality(self) -> dict[str, Quality]:
        """Each task's result, by the task's text."""
        return {task: answer.quality for task, answer in self.answers.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user must know, each note once."""
        pieces: Iterable[Costs | Answer] = (self.costs, *self.answers.values())
        return tuple(dict.fromkeys(note for piece in pieces for note in piece.notes))

    @property
    def environment(self) -> dict[str, Any]:
        """Where its costs were measured."""
        return self.costs.environment


def to_json(thing: Costs | Answer | Measurement) -> str:
    """A measurement or a piece of one as JSON.

    JSON has no word for a number that is none or infinite; it is written as a text, such as "nan".
    """
    return json.dumps(_plain(asdict(thing)), allow_nan=False)


def from_json(kind: type[Piece], text: str, scores: tuple[float, float] = (-math.inf, math.inf)) -> Piece:
    """Return the piece that `to_json` wrote.

    Args:
        kind: the piece's class.
        text: the JSON.
        scores: the least and the largest score that an example can have.

    Raises:
        ValueError: the text is no such piece, or holds a value that no measurement gives.
    """
    try:
        piece = TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"this is no {kind.__name__.lower()}: {where} {first['msg']}") from error
    require_costs(piece) if isinstance(piece, Costs) else require_quality(piece.quality, scores)
    return piece


def require_costs(costs: Costs) -> None:
    """Refuse costs that no measurement gives.

    Raises:
        ValueError: a time is not a finite number above 0, or a number of bytes is negative or too large.
    """
    held, speed, memory, bandwidth = costs.bytes, costs.speed, costs.memory, costs.bandwidth
    sizes = [held.prefill, held.decoded, held.dense_decoded, memory.weights, memory.peak, memory.dense_peak]
    sizes += [memory.dense_weights, bandwidth.read if bandwidth else None]
    above = [bandwidth.copy if bandwidth else 1.0]
    if speed:
        above += [speed.prefill, speed.dense_prefill, speed.prefill_ratio]
        above += [speed.decode, speed.dense_decode, speed.decode_ratio]
    achieved = bandwidth.achieved if bandwidth else None
    possible = {
        "bytes": all(0 <= size < 2**63 for size in sizes if size is not None) and 0 < held.dense_prefill < 2**63,
        "tokens": 0 < held.tokens < 2**63 and (speed is None or 0 < speed.runs < 2**63),
        "times": all(0 < value < math.inf for value in above),
        "a spread": speed is None or (0 <= speed.spread < math.inf and 0 <= speed.prefill_spread < math.inf),
        "a claimed share": 0 <= held.claimed < math.inf,
        "a bandwidth": achieved is None or 0 <= achieved < math.inf,
    }
    if wrong := [what for what, may_be in possible.items() if not may_be]:
        raise ValueError(f"{wrong[0]} that no measurement gives")


def require_quality(quality: Quality, scores: tuple[float, float]) -> None:
    """Refuse a task's result that no measurement gives.

    Raises:
        ValueError: a score lies outside of what an example can have, or the numbers of scores do not agree.
    """
    low, high = scores
    # of a score without bounds a model that broke leaves no number
    if not all(low <= one <= high or (math.isinf(high) and math.isnan(one)) for one in quality.scores):
        raise ValueError(f"a score outside of {low:g} to {high:g}")
    if not (quality.n == len(quality.scores) > 0 and len(quality.depths) in (0, quality.n)):
        raise ValueError("scores or depths that are not one for each example")
    if not all(0 <= depth <= 1 for depth in quality.depths):
        raise ValueError("a depth outside of 0 to 1")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
