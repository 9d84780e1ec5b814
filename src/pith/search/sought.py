"""What a search for a recipe looked for, and what it found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tried:
    """One recipe that a search tried.

    Attributes:
        recipe: its text.
        memory: bytes of the weights and of the cache; None where it was given up before they were known.
        quality: the share of the dense model's score that it keeps, the lowest over the tasks; None likewise.
        latency: a decoded token's time, ratio to dense; None likewise.
        examples: how many examples of each task stand behind the quality.
        given_up: why it was given up early; None where it was measured to the end.
        on_front: whether no other tried recipe is at least as good in all three and better in one.
    """

    recipe: str
    memory: int | None
    quality: float | None
    latency: float | None
    examples: int
    given_up: str | None = None
    on_front: bool = False


@dataclass(frozen=True)
class Reached:
    """What a recipe reaches when it is measured afresh.

    Attributes:
        memory: bytes of the weights and of the caches.
        quality: the share of the dense model's score that it keeps, the lowest over the tasks.
        latency: a decoded token's time, ratio to dense.
    """

    memory: int
    quality: float
    latency: float


@dataclass(frozen=True)
class Sought:
    """A search: the limits that were asked for, everything tried, and the outcome.

    Attributes:
        memory: the most bytes that weights and cache may take; None for no limit.
        quality: the least share of the dense model's score to keep.
        latency: the most that a decoded token may take, ratio to dense; None for no limit.
        dense_memory: what the dense model takes.
        tried: every recipe, in the order tried.
        found: the text of the recipe that meets all limits, measured afresh; None where none does.
        nearest: the text of the recipe that comes nearest; the one found, where one was.
        misses: what the nearest one misses, in words; empty where it meets everything.
        command: a command line that uses the recipe.
        reached: what the nearest one reaches; None where nobody measured it.
    """

    memory: int | None
    quality: float
    latency: float | None
    dense_memory: int
    tried: tuple[Tried, ...]
    found: str | None
    nearest: str
    misses: str
    command: str
    reached: Reached | None = None
