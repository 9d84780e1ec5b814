"""Following chains of assignments without any text around them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pith.core import param
from pith.tasks import english, generate
from pith.tasks.generated import Generated
from pith.tasks.room import Room

MOST = 50_000
"""Assignments at most; there are names for a few more."""


@dataclass(frozen=True, kw_only=True)
class Tracing(Generated):
    """How often the model follows a chain down to its number: the share of chains that it spells exactly.

    The context is a worked example and then nothing but assignments of several chains, interleaved: "The apple has the
    number 4821. The river has the same number as the apple."; asked for the river, the answer is "the apple. The apple
    has the number 4821". In a chat the number alone is looked for. The interval is Wilson's.

    In the language "pith" it is " apple is 4821. river is apple." and "apple is 4821", without a worked example.
    """

    metric: ClassVar[str] = "share of exact answers"

    hops: int = param(2, "assignments of a chain", ge=1, le=100)
    chains: int | None = param(None, "chains; none is as many as fit the length", ge=1, le=MOST // 100)

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """Chains, one of which is asked for; a guesser spells one of them."""
        state = rng.random()

        def build(chains: int) -> generate.Example:
            draw = generate.variable_tracking if room.language == "pith" else english.variable_tracking
            return draw(Random(state), chains, self.hops)

        return room.fixed(build(self.chains)) if self.chains else room.filled(build, 1, MOST // self.hops)
