"""What whoever has read Python knows: lines that its library nearly always goes on with in one way."""

from __future__ import annotations

import re
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

from pith.core import InputError

_PIECE = re.compile(r"\w+|[^\w\s]")

SEEN, FILES, SHARE = 6, 4, 0.8
"""How often a line's beginning goes on with the answer at least, in how many files, and in what share of all places."""

PIECES = 8
"""The words and signs of a line that are looked at."""

ALIKE = 4
"""The most facts with one answer, so that naming the commonest word is no knowledge."""


@dataclass(frozen=True)
class Fact:
    """The beginning of a line, and the word that it goes on with.

    Attributes:
        question: the beginning, without a space at its end.
        answer: the word, with a space before it where there is one.
    """

    question: str
    answer: str

    @property
    def line(self) -> str:
        """Both, as they stand in a text."""
        return f"\n    {self.question}{self.answer}"

    @property
    def asked(self) -> str:
        """The line up to where the answer begins."""
        return f"\n    {self.question}"


@lru_cache(maxsize=1)  # reading the library takes seconds
def facts() -> tuple[Fact, ...]:
    """All of them, those that are seen most often first; they depend on the running Python's version."""
    after: dict[str, Counter[str]] = defaultdict(Counter)
    files: dict[str, set[Path]] = defaultdict(set)
    for path, line in _lines():
        pieces = [*_PIECE.finditer(line)][:PIECES]
        for piece in pieces[2:]:
            word = piece.group()
            if len(word) > 2 and word.isidentifier():
                question = line[: piece.start()].rstrip()
                after[question][line[len(question) : piece.end()]] += 1
                files[question].add(path)
    found: list[tuple[int, Fact]] = []
    for question, words in after.items():
        answer, seen = words.most_common(1)[0]
        if seen >= SEEN and seen >= SHARE * words.total() and len(files[question]) >= FILES:
            found.append((seen, Fact(question, answer)))
    found.sort(key=lambda pair: (-pair[0], pair[1].question))
    return tuple(_few_alike([fact for _, fact in found]))


def drawn(owner: str, count: int, seed: int) -> tuple[Fact, ...]:
    """So many facts; more of them do not change the first ones.

    Raises:
        InputError: there are not so many.
    """
    every = facts()
    if count > len(every):
        raise InputError(f"{owner}: count={count} is not allowed; this Python's library gives at most {len(every)}")
    return tuple(Random(seed).sample(every, len(every))[:count])


def _lines() -> Iterator[tuple[Path, str]]:
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for line in path.read_text(encoding="utf-8", errors="ignore").split("\n"):
            if not line.lstrip().startswith("#"):
                yield path, line.strip()


def _few_alike(every: list[Fact]) -> Iterator[Fact]:
    seen: Counter[str] = Counter()
    for fact in every:
        seen[fact.answer.strip()] += 1
        if seen[fact.answer.strip()] <= ALIKE:
            yield fact
