"""Following chains of assignments without any text around them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pith.core import param
from pith.tasks import generate
from pith.tasks.generated import Generated
from pith.tasks.room import Room

MOST = 50_000
"""Assignments at most; there are names for a few more."""


@dataclass(frozen=True, kw_only=True)
class Tracing(Generated):
    """How often the model follows a chain down to its number: the share of chains that it spells exactly.

    The context is nothing but assignments of several chains, interleaved: " apple is 4821. river is apple."; asked for
    river, the answer is "apple is 4821". The interval is Wilson's.
    """

    metric: ClassVar[str] = "share of exact answers"

    hops: int = param(2, "assignments of a chain", ge=1, le=100)
    chains: int | None = param(None, "chains; none is as many as fit the length", ge=1, le=MOST // 100)

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """Chains, one of which is asked for; a guesser spells one of them."""
        state = rng.random()

        def build(chains: int) -> generate.Example:
            return generate.variable_tracking(Random(state), chains, self.hops)

        return room.fixed(build(self.chains)) if self.chains else room.filled(build, 1, MOST // self.hops)
