"""A long reply, of which every word builds on the words before it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pith.tasks import generate
from pith.tasks.copying import Copying
from pith.tasks.generated import default
from pith.tasks.room import Room
from pith.tasks.scoring import Match


@dataclass(frozen=True, kw_only=True)
class KickGeneration(Copying):
    """How much of a long list the model writes down again: the share of its words that stand in the reply.

    The lists of `copying`, fewer and longer: the model reads its own words as it writes, where perplexity reads the
    right ones, and one that repeats itself or breaks off misses the rest. A guesser names words of any of the lists.
    The interval is Wilson's where every score is 0 or 1, else Student's.

    Deviates from LLM-KICK (arXiv 2310.01382), which has GPT-4 compare summaries of news with those of GPT-3.5: here no
    judge is asked, and what is right follows from the prompt.
    """

    name: ClassVar[str] = "kick_generation"
    metric: ClassVar[str] = "share of the answers found"
    match: ClassVar[Match] = "all"

    words: int = default(Copying, "words", 40)
    lists: int | None = default(Copying, "lists", 4)

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """Lists, one of which is asked for."""
        example = super().draw(rng, room)
        said = tuple(word for one in example.candidates for word in _words(one))
        return dataclasses.replace(example, answers=tuple(_words(example.answer)), candidates=said)


def _words(text: str) -> list[str]:
    return text.replace(",", "").split()
