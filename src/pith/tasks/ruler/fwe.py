"""Frequent words, one of RULER's two tasks of counting."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from random import Random
from typing import ClassVar

from pith.core import param
from pith.tasks import generate
from pith.tasks.generated import Generated
from pith.tasks.room import Room
from pith.tasks.scoring import Match

DOTS = "..."
"""What stands in the text most often and is no word."""


@dataclass(frozen=True, kw_only=True)
class FWE(Generated):
    """How many of the most frequent words the model names: the share of the three that stand in its reply.

    The context is a text of made-up words in random order. The word of rank k stands in it proportionally to

        k^-alpha

    and rank 1 are dots, which do not count: the answer is ranks 2 to 4. It is filled with more words. The prompt says
    before the text what will be asked. A guesser names words of the text. The interval is Wilson's where every score is
    0 or 1, else Student's.

    In the language "pith" the prompt has no instruction.
    """

    metric: ClassVar[str] = "share of the answers found"
    match: ClassVar[Match] = "all"

    alpha: float = param(2.0, "how steeply frequency falls with rank", ge=1.1, le=10)

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """A text of made-up words."""
        state = rng.random()
        least = next(n for n in count(1) if len(self._frequencies(n)) > 4)
        return room.filled(lambda dots: self._text(Random(state), dots, room), least, 8 * room.length)

    def _frequencies(self, dots: int) -> list[int]:
        """How often each rank comes where the first comes so often, while the second to fourth can be told apart."""
        ranks = (int(dots * rank**-self.alpha) for rank in count(1))
        often = [next(ranks)]
        for times in ranks:
            if times == 0 or (len(often) < 5 and times == often[-1]):
                return often
            often.append(times)
        raise AssertionError("a power falls below one")

    def _text(self, rng: Random, dots: int, room: Room) -> generate.Example:
        often = self._frequencies(dots)
        words = [DOTS, *_made_up(rng, len(often) - 1)]
        said = [word for word, times in zip(words, often, strict=True) for _ in range(times)]
        rng.shuffle(said)
        english = room.language == "english"
        return generate.Example(
            context=f"{_INSTRUCTION if english else ' Text: '}{' '.join(said)}",
            question=_QUESTION if english else "\nThe 3 words that the text holds most often:",
            start="The three most frequent words of the coded text above are:" if english else None,
            answer=" " + " ".join(words[1:4]),
            answers=tuple(words[1:4]),
            candidates=tuple(words[1:]),
        )


_INSTRUCTION = "The text below is made of code words. Count how often each appears, and find the three most frequent.\n"
_QUESTION = (
    f"\nQuestion: Leaving out the dots '{DOTS}', what are the three most frequent words of the coded text above? "
    "Give the words only."
)


def _made_up(rng: Random, count: int) -> list[str]:
    """So many different words of three syllables."""
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3))] = None
    return list(words)
