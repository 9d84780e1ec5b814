"""What a model must have learned: facts about the world, or, in the built-in model's language, Python's library.

Whoever has read the library knows how those lines of it go on that nearly always go on in one way.
"""

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
from pith.tasks.kick.world import questions
from pith.texts import Spoken

_PIECE = re.compile(r"\w+|[^\w\s]")

SEEN, FILES, SHARE = 8, 4, 0.8
"""How often a line's beginning goes on with the answer at least, in how many files, and in what share of all places."""

BEGUN = 8
"""The characters that a question has at least; a line that begins with them like few others is passed over."""

PIECES = 8
"""The words and signs of a line that are looked at."""

ALIKE = 8
"""The most facts with one answer, so that naming the commonest word is no knowledge."""


@dataclass(frozen=True)
class Fact:
    """A question, or the beginning of a line, and what it goes on with.

    Attributes:
        question: the question up to its answer; or the line's beginning, behind an empty line and as many spaces as it
            mostly has. No space at its end.
        answer: the words, with a space before them where there is one.
        kind: the form of the question, such as "What is the capital of {}?"; empty for lines.
    """

    question: str
    answer: str
    kind: str = ""

    def alike(self, other: Fact) -> bool:
        """Return whether the answer of another fact could be this one's, as far as its form tells."""
        return self.kind == other.kind


@lru_cache
def facts(spoken: Spoken) -> tuple[Fact, ...]:
    """Return all facts that are asked for in a language."""
    if spoken == "pith":
        return _lines_known()
    return tuple(Fact(f"Question: {asked}\nAnswer:", f" {answer}", kind) for kind, asked, answer in questions())


def _lines_known() -> tuple[Fact, ...]:
    """Those of Python's library, which take seconds to read: seen most often first, by the running Python's version."""
    places = [*_places()]
    seen = Counter((question, answer) for question, answer, _, _ in places)
    common = {question for (question, _), count in seen.items() if count >= SEEN}
    totals = Counter(question for question, _, _, _ in places if question in common)
    indents: dict[str, Counter[str]] = defaultdict(Counter)
    files: dict[str, set[int]] = defaultdict(set)
    for question, _, indent, file in places:
        if question in common:
            indents[question][indent] += 1
            files[question].add(file)
    found = [
        (count, Fact(f"\n\n{indents[question].most_common(1)[0][0]}{question}", answer))
        for (question, answer), count in seen.items()
        if count >= max(SEEN, SHARE * totals[question]) and len(files[question]) >= FILES
    ]
    found.sort(key=lambda pair: (-pair[0], pair[1].question))
    return tuple(_few_alike([fact for _, fact in found]))


def drawn(owner: str, spoken: Spoken, count: int, seed: int) -> tuple[Fact, ...]:
    """So many facts in a language; more of them do not change the first ones.

    Raises:
        InputError: there are not so many.
    """
    every = facts(spoken)
    if count > len(every):
        raise InputError(f"{owner}: count={count} is not allowed; there are {len(every)} questions here")
    return tuple(Random(seed).sample(every, len(every))[:count])


def _places() -> Iterator[tuple[str, str, str, int]]:
    """Every beginning of a line that a longer word follows, that word, the line's indentation, its file's number."""
    lines = [*_lines()]
    begun = Counter(whole.lstrip()[:BEGUN] for _, whole in lines)
    for file, whole in lines:
        line = whole.strip()
        if begun[line[:BEGUN]] >= SEEN:  # so that most lines are passed over, which would take most of the time
            for piece in [*_PIECE.finditer(line)][2:PIECES]:
                word = piece.group()
                if len(word) > 2 and word.isidentifier():
                    question = line[: piece.start()].rstrip()
                    if len(question) >= BEGUN:
                        yield question, line[len(question) : piece.end()], whole[: -len(whole.lstrip())], file


def _lines() -> Iterator[tuple[int, str]]:
    """The library's lines that are no comments, and the numbers of their files."""
    for file, path in enumerate(sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))):
        for line in path.read_text(encoding="utf-8", errors="ignore").split("\n"):
            if not line.lstrip().startswith("#"):
                yield file, line


def _few_alike(every: list[Fact]) -> Iterator[Fact]:
    seen: Counter[str] = Counter()
    for fact in every:
        seen[fact.answer.strip()] += 1
        if seen[fact.answer.strip()] <= ALIKE:
            yield fact
