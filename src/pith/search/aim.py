"""What a search for a recipe is to meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pith.core import InputError
from pith.core.words import bytes_
from pith.measure import weight_bytes
from pith.measure.seconds import DECODED
from pith.models import Loaded, require_positions
from pith.search.space import Space, contracts, space
from pith.tasks import Task
from pith.weights import blocks


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What is searched for.

    Attributes:
        memory: the most bytes that weights and cache may take; None for no limit.
        quality: the least share of the dense model's score to keep, on every task.
        latency: the most that a decoded token may take, ratio to dense; None for no limit.
        tasks: how quality is measured.
        length: tokens of the prompt that is weighed and timed.
        batch: sequences whose caches must fit at once; one is weighed, and counts so many times.
        seed: of the prompt and of what is proposed; tasks have their own.
        batch_size: sequences that a task reads at once.
        among: contracts and methods that are searched; none leaves that to the limits.
    """

    memory: int | None = None
    quality: float = 0.98
    latency: float | None = None
    tasks: tuple[Task, ...]
    length: int = 1024
    batch: int = 1
    seed: int = 0
    batch_size: int = 8
    among: tuple[str, ...] = ()

    def require_sense(self, loaded: Loaded) -> None:
        """Refuses limits that no recipe can meet, or that ask for nothing.

        Raises:
            InputError: a limit or a number makes no sense.
        """
        if self.memory is None and self.latency is None:
            raise InputError("nothing is limited; give the most memory, the most time, or both")
        if not 0 < self.quality <= 1:
            raise InputError(f"quality={self.quality} makes no sense; allowed is more than 0 and at most 1")
        if self.latency is not None and not self.latency > 0:
            raise InputError(f"latency={self.latency} makes no sense; allowed is a ratio to dense above 0")
        for name, value in {"length": self.length, "batch": self.batch, "batch_size": self.batch_size}.items():
            if value < 1:
                raise InputError(f"{name}={value} makes no sense; allowed is 1 or more")
        self._require_room(loaded.model)
        require_positions(loaded.model, self.length + DECODED, f"length={self.length} and {DECODED} decoded tokens")

    def _require_room(self, model: Any) -> None:
        """Refuses a memory that what no searched method makes smaller fills alone: embeddings, or all the weights."""
        if self.memory is None:
            return
        what, least = "weights", weight_bytes(model)
        if space(self._among(below_dense=True)).weights:
            what, least = "embeddings", least - weight_bytes(blocks(model))
        if self.memory <= least:
            raise InputError(
                f"memory={bytes_(self.memory)} makes no sense: the {what} alone take {bytes_(least)}, and no method "
                "that is searched makes them smaller"
            )

    def searched(self, dense_memory: int, without: Sequence[str] = ()) -> Space:
        """The methods that are searched.

        Args:
            dense_memory: what the dense model takes.
            without: methods that the model cannot take.

        Raises:
            InputError: there is no such contract or method.
        """
        return space(self._among(self.memory is not None and self.memory < dense_memory), without)

    def _among(self, below_dense: bool) -> Sequence[str]:
        return self.among or [*contracts(weights=False), *(contracts(weights=True) if below_dense else ())]

    def misses(self, memory: float | None, quality: float | None, latency: float | None) -> tuple[float, float, float]:
        """By which share each limit is missed; 0 where it is met, is none, or nothing is known."""
        return (
            max(memory / self.memory - 1, 0.0) if memory is not None and self.memory else 0.0,
            max(1 - quality / self.quality, 0.0) if quality is not None else 0.0,
            max(latency / self.latency - 1, 0.0) if latency is not None and self.latency else 0.0,
        )
