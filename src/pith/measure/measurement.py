"""A measurement: what one recipe did to one model."""

from __future__ import annotations

from dataclasses import dataclass
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
