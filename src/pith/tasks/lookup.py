"""Key-value look-up without any text around it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pith.core import param
from pith.tasks import english, generate
from pith.tasks.generated import Generated
from pith.tasks.room import Room

MOST = 50_000
"""Pairs that are asked for at most; there are names for a few more."""


@dataclass(frozen=True, kw_only=True)
class Lookup(Generated):
    """How often the model gives the value of a key: the share of questions that greedy decoding answers exactly.

    The context is nothing but facts such as "The apple is number 4821.", each with a key of its own, so
    every one of them looks like the one that is asked for. The interval is Wilson's.

    In the language "pith" facts are " apple is 4821.", of which more fit.
    """

    metric: ClassVar[str] = "share of exact answers"

    pairs: int | None = param(None, "facts; none is as many as fit the length", ge=1, le=MOST)

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """Facts, one of which is asked for; a guesser names one of the values that stand in the context."""
        state = rng.random()

        def build(pairs: int) -> generate.Example:
            draw = generate.lookup if room.language == "pith" else english.lookup
            return draw(Random(state), pairs)

        return room.fixed(build(self.pairs)) if self.pairs else room.filled(build, 1, MOST)
