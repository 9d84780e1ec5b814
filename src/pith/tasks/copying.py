"""Repeating one of many lists."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pith.core import param
from pith.tasks import english, generate
from pith.tasks.generated import Generated
from pith.tasks.room import Room

MOST = 50_000
"""Words of all lists at most; there are a few more."""


@dataclass(frozen=True, kw_only=True)
class Copying(Generated):
    """How often the model repeats a list of words: the share of lists that it goes on with exactly.

    The context is nothing but lists such as "One list reads: apple, river, canoe.", in which no word comes twice; the
    prompt ends in the first word of one of them. A guesser continues with any of the lists. The interval is Wilson's.

    In the language "pith" lists are " List: apple river canoe.".
    """

    metric: ClassVar[str] = "share of exact answers"

    words: int = param(8, "words of a list", ge=2, le=1000)
    lists: int | None = param(None, "lists; none is as many as fit the length", ge=1, le=MOST // 1000)

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """Lists, one of which is asked for; a guesser repeats one of them."""
        state = rng.random()

        def build(lists: int) -> generate.Example:
            return self._lists(Random(state), lists, room)

        return room.fixed(build(self.lists)) if self.lists else room.filled(build, 1, MOST // self.words)

    def _lists(self, rng: Random, lists: int, room: Room) -> generate.Example:
        words = generate.names(rng, lists * self.words)
        said = [words[i * self.words : (i + 1) * self.words] for i in range(lists)]
        asked = rng.randrange(lists)
        if room.language == "english":
            return english.copying(said, asked)
        return generate.Example(
            context="".join(f" List: {' '.join(one)}." for one in said),
            question=f"\nRecall: List: {said[asked][0]}",
            answer=" " + " ".join(said[asked][1:]),
            candidates=tuple(" ".join(one[1:]) for one in said),
            depth=asked / max(lists - 1, 1),
        )
