"""Text in which facts are hidden, and how much of it fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

_SENTENCE_END = re.compile(r"(?<=[.:;!?])(?=\s)")

_MOST = 2**26
"""Characters of a haystack at most."""

NOISE = " The rain comes down. The clouds go by. The day grows long. We walk on and we rest."
"""Sentences that are said again and again where a haystack is to be as plain as can be."""


def stretch(rng: Random, haystack: str, size: int) -> str:
    """Cut about ``size`` characters that begin at a random line of the haystack, wrapping round its end."""
    start = haystack.find("\n", rng.randrange(max(len(haystack), 1))) + 1
    doubled = haystack[start:] + haystack[:start]
    return doubled[:size]


def passages(rng: Random, haystack: str, size: int) -> str:
    """Cut ``size`` characters that begin at a random paragraph of the haystack.

    At its end the text continues at its beginning; when all of it was taken, its paragraphs follow again, in a random
    order. A paragraph is a line.

    Args:
        rng: source of chance.
        haystack: the text; one without any word gives an empty text.
        size: how many characters, at most 2**26.
    """
    lines = [line for line in haystack.split("\n") if line.strip()]
    start = rng.randrange(max(len(lines), 1))
    taken, length, order = [], 0, lines[start:] + lines[:start]
    while lines and length < min(size, _MOST):
        taken += order
        length += sum(map(len, order)) + len(order)
        order = rng.sample(lines, len(lines))
    return "\n".join(taken)[: min(size, _MOST)]


def noise(size: int) -> str:
    """The first ``size`` characters of `NOISE` said again and again."""
    return (NOISE * (size // len(NOISE) + 1))[:size]


def insert(filler: str, facts: Sequence[str], places: Sequence[float], in_order: bool = False) -> str:
    """Put each fact behind the sentence that ends nearest to its relative place.

    Args:
        filler: the text.
        facts: sentences that begin with a space.
        places: of each fact, 0 the beginning and 1 the end.
        in_order: whether facts at one place stand in the order in which they are given, and not by alphabet.
    """
    size = len(filler)
    ends = [0, *(match.start() for match in _SENTENCE_END.finditer(filler)), size]
    at = [min((abs(end - place * size), end) for end in ends)[1] for place in places]
    pieces: list[str] = []
    done = 0
    for position, _, sentence in sorted(
        (a, i if in_order else 0, f) for i, (a, f) in enumerate(zip(at, facts, strict=True))
    ):
        pieces += [filler[done:position], sentence]
        done = position
    return "".join([*pieces, filler[done:]])


def largest(fits: Callable[[int], bool], most: int, least: int = 0, near: int | None = None) -> int:
    """The largest size between ``least``, which fits, and ``most`` that still fits.

    Args:
        fits: whether a size fits; if one does, so do those below it.
        most, least: the ends of the search.
        near: where to look first, in steps that double; halfway if not given.
    """
    low, high = least, most + 1
    step = near
    while high - low > 1:
        middle = (low + high) // 2 if step is None else min(low + step, high - 1)
        if fits(middle):
            low, step = middle, None if step is None else 2 * step
        else:
            high, step = middle, None
    return low
