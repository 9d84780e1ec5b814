"""A measurement: what one recipe did to one model."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from pith.tasks.base import Quality


@dataclass(frozen=True)
class Speed:
    """Times of interleaved runs (subject, dense, subject, dense, ...) in one process; medians, in seconds.

    Attributes:
        prefill, dense_prefill: seconds until the prompt is read.
        decode, dense_decode: seconds for each decoded token.
        prefill_ratio, decode_ratio: the median over pairs of subject divided by dense; below 1 is faster than dense.
        spread: the largest distance of a pair's decode ratio from the median one, as a share of it.
        runs: the number of pairs.
    """

    prefill: float
    dense_prefill: float
    prefill_ratio: float
    decode: float
    dense_decode: float
    decode_ratio: float
    spread: float
    runs: int


@dataclass(frozen=True)
class CacheBytes:
    """Bytes that the cache's tensors hold (`untyped_storage().nbytes()`, each storage once), for one sequence.

    Attributes:
        prefill, dense_prefill: after the prompt.
        decoded, dense_decoded: after the decoded tokens.
        tokens: the prompt's length.
        claimed: the share of the dense cache that the recipe says it holds after the prompt.
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
class Measurement:
    """What one recipe did to one model: quality by task, bytes, seconds, and the environment it was taken in.

    Attributes:
        model: the model's name, as the user gave it.
        recipe: the recipe's text; "dense" is the model in plain Transformers.
        quality: each task's result, by the task's text.
        bytes, speed: what the cache held and how long it took.
        notes: what the user must know, such as layers that were left alone.
        environment: versions, processor, threads, dtype, seed, commit, settings.
    """

    model: str
    recipe: str
    quality: dict[str, Quality]
    bytes: CacheBytes
    speed: Speed
    notes: tuple[str, ...]
    environment: dict[str, Any]


def to_json(measurement: Measurement) -> str:
    """The measurement as JSON, which `from_json` turns back into an equal one.

    JSON has no word for a number that is none or infinite; it is written as a text, such as "nan".
    """
    return json.dumps(_plain(asdict(measurement)), allow_nan=False)


def from_json(text: str) -> Measurement:
    """The measurement that `to_json` wrote.

    Raises:
        ValueError: the text is no measurement.
    """
    try:
        data = json.loads(text)
        speed: dict[str, Any] = {
            name: value if name == "runs" else float(value) for name, value in data["speed"].items()
        }
        return Measurement(
            model=data["model"],
            recipe=data["recipe"],
            quality={task: _quality(found) for task, found in data["quality"].items()},
            bytes=CacheBytes(**data["bytes"]),
            speed=Speed(**speed),
            notes=tuple(data["notes"]),
            environment=data["environment"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no measurement: {error}") from error


def _quality(data: dict[str, Any]) -> Quality:
    value, low, high = (float(data[name]) for name in ("value", "low", "high"))
    return Quality(value, low, high, data["n"], tuple(map(float, data["scores"])))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
