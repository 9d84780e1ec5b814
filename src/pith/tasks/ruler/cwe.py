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

LONG = 4096
"""Tokens from which RULER repeats words more often."""


@dataclass(frozen=True, kw_only=True)
class CWE(Generated):
    """How many of the common words the model names: the share of them that stand in its reply.

    The context is a numbered list of words in random order: some stand in it many times, all others a few times. It is
    filled with more of the others. A worked example, a short list with its answer, stands before it. A guesser names
    words of the list. The interval is Wilson's where every score is 0 or 1, else Student's.

    In the language "pith" the list has no numbers, and its words stand in it 30 and 3 times at any length.
    """

    metric: ClassVar[str] = "share of the answers found"
    match: ClassVar[Match] = "all"

    common: int = param(10, "words that stand in the list many times", ge=1, le=100)
    often: int | None = param(None, "times that each of them does; none is 30, or 6 below 4096 tokens", ge=2)
    seldom: int | None = param(None, "times that each other word does; none is 3, or 1 below 4096 tokens", ge=1)

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """A list of words."""
        state = rng.random()
        short = room.language == "english" and room.length < LONG
        often = self.often or (6 if short else 30)
        seldom = self.seldom or (1 if short else 3)
        return room.filled(lambda others: self._list(Random(state), others, often, seldom, room), 1, MOST)

    def _list(self, rng: Random, others: int, often: int, seldom: int, room: Room) -> generate.Example:
        words = generate.names(rng, self.common + others)
        asked = words[: self.common]
        said = _repeated(rng, words, self.common, often, seldom)
        if room.language == "english":
            return self._english(rng, words, said, room)
        return generate.Example(
            context=f" List: {' '.join(said)}.",
            question=f"\nThe {self.common} words that the list holds most often:",
            answer=" " + " ".join(asked),
            answers=tuple(asked),
            candidates=tuple(words),
        )

    def _english(self, rng: Random, words: list[str], said: list[str], room: Room) -> generate.Example:
        others, often, seldom = (1, 3, 1) if room.length < LONG else (3, 10, 3)
        shown = generate.names(rng, (1 + others) * self.common)
        worked = _numbered(_repeated(rng, shown, self.common, often, seldom))
        question = f"\nQuestion: What are the {self.common} most frequent words of the list above?"
        start = f"The {self.common} words that the list holds most often are:"
        asked = words[: self.common]
        return generate.Example(
            context=f"{_INSTRUCTION}{worked}{question}\nAnswer: {start} {_numbered(shown[: self.common])}\n\n"
            f"{_INSTRUCTION}{_numbered(said)}",
            question=question,
            answer=f" {_numbered(asked)}",
            answers=tuple(asked),
            candidates=tuple(words),
            start=start,
        )


_INSTRUCTION = "The numbered list below repeats some words more often than others. Remember the most frequent ones.\n"


def _repeated(rng: Random, words: list[str], common: int, often: int, seldom: int) -> list[str]:
    """Return the words in random order, the first ``common`` of them ``often`` times, the others ``seldom`` times."""
    said = [word for i, word in enumerate(words) for _ in range(often if i < common else seldom)]
    rng.shuffle(said)
    return said


def _numbered(words: list[str]) -> str:
    return " ".join(f"{i}. {word}" for i, word in enumerate(words, 1))
