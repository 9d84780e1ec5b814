"""The room that an example has: its tokens, which it fills as far as it can, its language and its haystack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from pith.core import InputError
from pith.tasks.filler import insert, largest, noise, passages, stretch
from pith.tasks.generate import Example
from pith.tasks.heldout import heldout_text
from pith.texts import Spoken

FILLED = 0.95
"""The share of its length that an example fills at least."""


@dataclass(frozen=True)
class Room:
    """So many tokens for context, question and reply together.

    Attributes:
        owner: whose example it is, for messages.
        length: the tokens.
        count: the number of tokens of a text.
        wordy: how many times as long as the answer a reply may be.
        language: in which language the example is worded.
        haystack: the text in which facts are hidden; None is Python's language reference.
    """

    owner: str
    length: int
    count: Callable[[str], int]
    wordy: int = 1
    language: Spoken = "pith"
    haystack: str | None = None

    @property
    def text(self) -> str:
        """The text in which facts are hidden."""
        return heldout_text() if self.haystack is None else self.haystack

    @property
    def cut(self) -> Callable[[Random, str, int], str]:
        """Take a stretch of about so many characters from the text."""
        return stretch if self.haystack is None else passages

    def size(self, example: Example) -> int:
        """The example's tokens, with those of its longest reply."""
        return self.count(example.context + example.question + example.lead + example.answer * self.wordy)

    def fits(self, example: Example) -> bool:
        """Whether the example is within the length."""
        return self.size(example) <= self.length

    def fixed(self, example: Example) -> Example:
        """An example that has no filler, where it fits.

        Raises:
            InputError: it does not.
        """
        if not self.fits(example):
            raise InputError(
                f"{self.owner}: length={self.length} is too short; such an example takes {self.size(example)}"
            )
        return example

    def filled(self, build: Callable[[int], Example], least: int, most: int, near: int | None = 8) -> Example:
        """The largest example that fits.

        Args:
            build: makes an example of so many parts.
            least, most: the fewest and the most parts.
            near: how many more than the fewest are tried first; halfway to the most if not given.

        Raises:
            InputError: the smallest example does not fit, or the largest leaves the length unfilled.
        """
        self.fixed(build(least))
        parts = largest(lambda parts: self.fits(build(parts)), most, least, near)
        return self.long_enough(build(parts)) if parts == most else build(parts)

    def long_enough(self, example: Example) -> Example:
        """An example that could not be made longer, where it fills the length.

        Raises:
            InputError: it does not.
        """
        size = self.size(example)
        if size < FILLED * self.length:
            raise InputError(f"{self.owner}: length={self.length} is not filled; allowed is at most {size}")
        return example

    def hidden(
        self, rng: Random, example: Example, facts: Sequence[str], places: Sequence[float], plain: bool = False
    ) -> Example:
        """The example with a context of filler in which facts are hidden.

        Args:
            rng: source of chance.
            example: its question and its answer; what its context holds stands before the filler.
            facts, places: sentences, and where they stand: 0 is the beginning, 1 the end.
            plain: whether the filler is a few sentences said again and again, and not a stretch of the haystack.

        Raises:
            InputError: the facts do not fit, or the text does not fill the length.
        """
        text = noise(self.length * 8) if plain else self.cut(rng, self.text, self.length * 8)

        def build(size: int) -> Example:
            return replace(example, context=example.context + insert(text[:size], facts, places, in_order=True))

        return self.filled(build, 0, len(text), near=None)
