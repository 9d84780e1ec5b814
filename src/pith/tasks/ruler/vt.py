"""Variable tracking, RULER's task of following several steps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pith.core import param
from pith.tasks import generate
from pith.tasks.generated import Generated
from pith.tasks.room import Room
from pith.tasks.scoring import Match
from pith.tasks.words import KEY_WORDS


@dataclass(frozen=True, kw_only=True)
class VT(Generated):
    """How much of a chain of assignments the model follows: the share of its names and its number in the reply.

    " apple is 4821." and later " river is apple." stand, in this order, at random places between a few sentences that
    are said again and again. Asked for the last name, the answer spells the chain down to its number. The interval is
    Wilson's where every score is 0 or 1, else Student's.

    Deviates from RULER (arXiv 2404.06654), which gives the number and asks for all names; here it is the other end of
    the same chain, because that is the language of the other tasks. A guesser names words of that language.
    """

    metric: ClassVar[str] = "share of the answers found"
    match: ClassVar[Match] = "all"

    chains: int = param(1, "chains, of which one is asked for", ge=1, le=100)
    hops: int = param(4, "steps from the last name to the first", ge=1, le=100)

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """Chains in noise."""
        facts, steps = generate.assignments(rng, self.chains, self.hops + 1)
        example = generate.chained(facts, steps, rng)
        parts = tuple(example.answer.strip().split(" is "))
        numbers = [chain[-1] for chain in steps]
        example = dataclasses.replace(example, answers=parts, candidates=(*KEY_WORDS, *numbers))
        return room.hidden(rng, example, facts, sorted(rng.random() for _ in facts), plain=True)
