"""Retrieval of one of several facts that are hidden in a long text."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pith.core import param
from pith.tasks import english, generate
from pith.tasks.generated import Generated
from pith.tasks.room import Room


@dataclass(frozen=True, kw_only=True)
class Needle(Generated):
    """How often the model finds a fact: the share of questions that greedy decoding answers exactly.

    Facts such as "The secret number of the apple is 4821." are hidden at random places of ordinary prose; the prompt
    ends in a question for one of them and the beginning of its answer. Example `i` depends on the seed and `i` only,
    and fills `length` tokens with its answer. The interval is Wilson's.

    In the language "pith" facts are " apple is 4821.", and the haystack is Python's language reference.
    """

    metric: ClassVar[str] = "share of exact answers"

    depth: float | None = param(
        None, "where the fact stands: 0 is the beginning, 1 the end; none is anywhere", ge=0, le=1
    )
    keys: int = param(4, "facts, of which one is asked for", ge=1, le=100)
    haystack: str | None = param(
        None, "path of a text file to hide facts in; none is Pith's prose, for pith Python's reference", file=True
    )

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """Facts, one of which is asked for; a guesser names one of the values that stand in the context."""
        depth = rng.random() if self.depth is None else self.depth
        if room.language == "pith":
            example = generate.needle(rng, room.text, room.count, room.length, depth, self.keys, room.cut)
            return room.long_enough(example)
        keys = generate.names(rng, self.keys, room.text, english.STATED)
        values = [generate.value(rng) for _ in keys]
        places = [depth, *(rng.random() for _ in keys[1:])]
        example = english.asked(keys[0], values[0], values, depth)
        return room.hidden(rng, example, list(map(english.fact, keys, values)), places)
