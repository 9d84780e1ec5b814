"""Retrieval of one of several facts that are hidden in a long text."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pith.core import param
from pith.tasks import generate
from pith.tasks.generated import Generated
from pith.tasks.heldout import heldout_text
from pith.tasks.room import Room


@dataclass(frozen=True, kw_only=True)
class Needle(Generated):
    """How often the model finds a fact: the share of questions that greedy decoding answers exactly.

    Facts such as " apple is 4821." stand at random places of Python's language reference; the prompt ends in a
    question for one of them. Example `i` depends on the seed and `i` only, and fills `length` tokens with its answer.
    The interval is Wilson's.
    """

    metric: ClassVar[str] = "share of exact answers"

    depth: float | None = param(
        None, "where the fact stands: 0 is the beginning, 1 the end; none is anywhere", ge=0, le=1
    )
    keys: int = param(4, "facts, of which one is asked for", ge=1, le=100)

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """Facts, one of which is asked for; a guesser names one of the values that stand in the context."""
        depth = rng.random() if self.depth is None else self.depth
        example = generate.needle(rng, heldout_text(), room.count, room.length, depth, self.keys)
        return room.long_enough(example)
