"""Common words, one of RULER's two tasks of counting."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pith.core import param
from pith.tasks import generate
from pith.tasks.generated import Generated
from pith.tasks.room import Room
from pith.tasks.scoring import Match

MOST = 50_000
"""Rare words at most."""


@dataclass(frozen=True, kw_only=True)
class CWE(Generated):
    """How many of the common words the model names: the share of them that stand in its reply.

    The context is a list of words in random order: some stand in it many times, all others a few times. It is filled
    with more of the others. A guesser names words of the list. The interval is Wilson's where every score is 0 or 1,
    else Student's.

    Deviates from RULER (arXiv 2404.06654), whose list is numbered.
    """

    metric: ClassVar[str] = "share of the answers found"
    match: ClassVar[Match] = "all"

    common: int = param(10, "words that stand in the list many times", ge=1, le=100)
    often: int = param(30, "times that each of them does", ge=2)
    seldom: int = param(3, "times that each other word does", ge=1)

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """A list of words."""
        state = rng.random()
        return room.filled(lambda others: self._list(Random(state), others), 1, MOST)

    def _list(self, rng: Random, others: int) -> generate.Example:
        words = generate.names(rng, self.common + others)
        asked = words[: self.common]
        said = [w for i, w in enumerate(words) for _ in range(self.often if i < self.common else self.seldom)]
        rng.shuffle(said)
        return generate.Example(
            context=f" List: {' '.join(said)}.",
            question=f"\nThe {self.common} words that the list holds most often:",
            answer=" " + " ".join(asked),
            answers=tuple(asked),
            candidates=tuple(words),
        )
