"""How a reply is scored, and what an oracle and a guesser would score."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from statistics import fmean
from typing import Literal

from pith.tasks.base import Calibration
from pith.tasks.generate import Example
from pith.tasks.interval import t_interval, wilson_interval

Match = Literal["exact", "all", "any"]
"""A reply counts where it is the answer, by the share of the parts that stand in it, or where one of them does."""

GUESSES = 200
"""Guesses that are drawn for an example whose answer has several parts."""


def score(example: Example, reply: str, match: Match) -> float:
    """A reply's score, 0 to 1.

    "all" and "any" are RULER's string match: a part counts where it stands in the reply, in any case of letters. It
    must stand there as a word of its own, so that "sun" is not found in "sunset".
    """
    if match == "exact":
        return float(reply.strip() == example.answer.strip())
    found = [re.search(rf"(?<![\w-]){re.escape(part)}(?![\w-])", reply, re.IGNORECASE) for part in example.parts]
    hits = [one is not None for one in found]
    return float(any(hits)) if match == "any" else fmean(hits)


def calibration(examples: Sequence[Example], match: Match) -> Calibration:
    """What one who writes the answers scores, and one who names candidates evenly at random."""
    return Calibration(
        oracle=fmean(score(example, example.answer, match) for example in examples),
        chance=fmean(_guessed(example, match, index) for index, example in enumerate(examples)),
    )


def _guessed(example: Example, match: Match, index: int) -> float:
    """The expected score of as many different candidates as the answer has parts.

    Where there is nothing to choose between, the answer can only be made up, which is taken to fail always.
    """
    parts, candidates = len(example.parts), example.candidates
    if match == "any":
        parts = 1
    if len(candidates) <= parts:
        return 0.0
    if parts == 1:
        return fmean(score(example, one, match) for one in candidates)
    rng = Random(index)
    return fmean(score(example, ", ".join(rng.sample(candidates, parts)), match) for _ in range(GUESSES))


def share_interval(scores: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of scores in [0, 1]: Student's, cut to that; Wilson's where all are 0 or 1.

    Wilson's too where all are equal, of which Student's would say that they are certain: no scores in [0, 1] spread
    more than hits and misses of the same mean do.
    """
    if len(set(scores)) == 1 or all(one in (0.0, 1.0) for one in scores):
        return wilson_interval(sum(scores), len(scores))
    low, high = t_interval(scores)
    return max(low, 0.0), min(high, 1.0)
