"""One number in plain noise."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pith.core import param
from pith.tasks import english, generate
from pith.tasks.generated import Generated
from pith.tasks.room import Room


@dataclass(frozen=True, kw_only=True)
class Passkey(Generated):
    """How often the model finds the only number in a text: the share of questions that greedy decoding answers exactly.

    "The pass key is 4821." stands, said twice, at some place between a few sentences that are repeated all along, and
    the prompt begins by saying so, as in the passkey retrieval of landmark attention (Mohtashami and Jaggi, arXiv
    2305.16300). There is nothing to mistake it for, so a guesser would have to make it up. The interval is Wilson's.

    In the language "pith" the fact is " passkey is 4821.".
    """

    metric: ClassVar[str] = "share of exact answers"

    digits: int = param(4, "digits of the number", ge=1, le=50)
    depth: float | None = param(
        None, "where the number stands: 0 is the beginning, 1 the end; none is anywhere", ge=0, le=1
    )

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """A number in noise."""
        depth = rng.random() if self.depth is None else self.depth
        number = "".join([str(rng.randrange(1, 10)), *(str(rng.randrange(10)) for _ in range(self.digits - 1))])
        if room.language == "pith":
            example = generate.Example("", generate.recall("passkey"), f" {number}", depth=depth)
            fact = generate.fact("passkey", number)
        else:
            example, fact = english.passkey(number, depth)
        return room.hidden(rng, example, [fact], [depth], plain=True)
