"""What a search looked for and found, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pith.report.words import bytes_, digits, percent
from pith.search.sought import Sought, Tried


@dataclass(frozen=True)
class Search:
    """A search as the page shows it."""

    sought: Sought

    @property
    def limits(self) -> list[tuple[str, str]]:
        """What was asked for, limit by limit."""
        asked = self.sought
        found = [("quality", f"at least {percent(asked.quality)} of the dense model's")]
        if asked.memory is not None:
            found.insert(0, ("weights and cache", f"at most {bytes_(asked.memory)}"))
        if asked.latency is not None:
            found.append(("a decoded token", f"at most {digits(asked.latency)}x the dense model's time"))
        return [*found, ("the dense model takes", bytes_(asked.dense_memory))]

    @property
    def sentence(self) -> str:
        """The outcome."""
        asked = self.sought
        if asked.found is not None:
            return f"`{asked.found}` meets every limit, measured afresh on examples that the search had not seen."
        return f"No recipe tried meets every limit; `{asked.nearest}` comes nearest and misses: {asked.misses}."

    @property
    def tried(self) -> list[tuple[str, ...]]:
        """A line of words for each recipe tried, those on the front first."""
        order = sorted(self.sought.tried, key=lambda t: (not t.on_front, t.given_up is not None))
        return [_words(tried) for tried in order]

    @property
    def reached(self) -> str:
        """What the recipe found, or the nearest, was measured to be; empty where it was not."""
        found = self.sought.reached
        if found is None:
            return ""
        return (
            f"Measured afresh: weights and cache take {bytes_(found.memory)}, {percent(found.quality)} of the quality "
            f"is kept, and a decoded token takes {digits(found.latency)}x the time."
        )

    @property
    def counts(self) -> str:
        """How many recipes were tried, and how many of them given up early."""
        tried = self.sought.tried
        return f"{len(tried)} recipes tried, {_count(tried)} of them given up early"


def _count(tried: Sequence[Tried]) -> int:
    return sum(t.given_up is not None for t in tried)


def _words(tried: Tried) -> tuple[str, ...]:
    unknown = "\u2013"
    return (
        tried.recipe,
        unknown if tried.memory is None else bytes_(tried.memory),
        unknown if tried.quality is None else percent(tried.quality),
        unknown if tried.latency is None else f"{digits(tried.latency)}x",
        str(tried.examples),
        "on the front" if tried.on_front else tried.given_up or "",
    )
