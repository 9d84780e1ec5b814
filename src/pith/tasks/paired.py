"""Two subjects that answered the same examples: how far apart they are, and what so few examples can tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Literal

from pith.core import InputError
from pith.tasks.base import Quality, Task
from pith.tasks.interval import LEVEL, t_interval, t_quantile

Verdict = Literal["better", "worse", "not distinguishable"]

POWER = 0.8
"""The chance with which a difference is to be found for it to count as one that can be told."""

COARSE = 0.1
"""A difference that every comparison should be able to tell: ten points of a share, or a tenth of any other score."""

EQUAL = 1e-5
"""Scores nearer than this are equal: sums in float32 taken in another order differ by as much."""


@dataclass(frozen=True)
class Difference:
    """How far one subject's score is from another's, example by example.

    Attributes:
        value: the mean of (mine - other); of a logarithmic task its exponential, the ratio mine / other.
        low, high: its 95 % confidence interval, corrected for the number of comparisons.
        verdict: "better" or "worse" where the interval leaves out no difference (0, or a ratio of 1).
        detectable: the smallest difference (or ratio above 1) that so many examples tell with a power of 80 %;
            infinite where no difference could be told.
        n: the number of examples.
        needed: how many examples would tell a difference of `COARSE` with that power; None where n is enough.
    """

    value: float
    low: float
    high: float
    verdict: Verdict
    detectable: float
    n: int
    needed: int | None = None


def paired(mine: Quality, other: Quality, task: Task, comparisons: int = 1) -> Difference:
    """The difference of two subjects on one task.

        level = 1 - (1 - 0.95) / comparisons                                  (Bonferroni's correction)

    Where every score is 0 or 1 the interval is Tango's for paired shares (Statistics in Medicine 17, 1998), which holds
    its level also where no example tells the two apart; of any other scores it is Student's of the differences, for
    logarithmic tasks in logarithms. A score that is not finite, such as a broken model's loss, is worse than any other.

    Args:
        mine, other: what the task found of each, on the same examples.
        task: the task.
        comparisons: how many such differences are looked at together.

    Raises:
        InputError: the two did not answer the same number of examples.
    """
    if len(mine.scores) != len(other.scores):
        raise InputError(
            f"{task.name}: {len(mine.scores)} scores cannot be paired with {len(other.scores)}; allowed are as many"
        )
    level = 1 - (1 - LEVEL) / comparisons
    if not all(map(math.isfinite, (*mine.scores, *other.scores))):
        return _broken(mine, other, task)
    differences = [float(a - b) if abs(a - b) > EQUAL else 0.0 for a, b in zip(mine.scores, other.scores, strict=True)]
    shares = task.higher_is_better and all(0 <= s <= 1 for s in (*mine.scores, *other.scores))
    if not task.logarithmic and set(mine.scores) | set(other.scores) <= {0.0, 1.0}:
        found = _of_shares(differences, level)
    else:
        coarse = COARSE if shares else math.log1p(COARSE) if task.logarithmic else COARSE * abs(other.value)
        found = _of_numbers(differences, level, coarse, bounded=shares)
    value, low, high, detectable, needed = found
    if task.logarithmic:
        value, low, high, detectable = map(_exp, (value, low, high, detectable))
    verdict = _verdict(low, high, 1.0 if task.logarithmic else 0.0, task.higher_is_better)
    return Difference(value, low, high, verdict, detectable, len(differences), needed)


def tango_interval(gained: int, lost: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Tango's score interval of the difference of two paired shares, (gained - lost) / n.

        (gained - lost - n d)^2 = z^2 n (2 q + d (1 - d)),   q the likeliest share of lost ones at the difference d

    Args:
        gained, lost: examples that only the one, and only the other, answers.
        n: all examples.
        level: of confidence.
    """
    z, middle = _normal(level), (gained - lost) / n

    def outside(d: float) -> bool:
        b = -gained - lost + (2 * n - gained + lost) * d
        q = (math.sqrt(max(b * b + 8 * n * lost * d * (1 - d), 0.0)) - b) / (4 * n)
        return (gained - lost - n * d) ** 2 > z * z * n * max(2 * q + d * (1 - d), 0.0)

    return _edge(middle, -1.0, outside), _edge(middle, 1.0, outside)


def _edge(inside: float, end: float, outside: Callable[[float], bool]) -> float:
    """Where an interval ends, between a place inside it and the last place that there is."""
    if not outside(end):
        return end
    for _ in range(60):
        middle = (inside + end) / 2
        inside, end = (inside, middle) if outside(middle) else (middle, end)
    return inside


def _of_shares(differences: Sequence[float], level: float) -> tuple[float, float, float, float, int | None]:
    n, gained, lost = len(differences), sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    low, high = tango_interval(gained, lost, n, level)
    # few examples say little of how many differ: one more that does and one that does not
    apart, alpha, beta = (gained + lost + 1) / (n + 2), _normal(level), NormalDist().inv_cdf(POWER)

    def enough(d: float) -> float:
        """Examples that tell a difference d (Connor, Biometrics 43, 1987); at least d of them must differ."""
        q = max(apart, d)
        return ((alpha * math.sqrt(q) + beta * math.sqrt(q - d * d)) / d) ** 2

    needed = math.ceil(enough(COARSE))
    detectable = math.inf if enough(1.0) > n else _edge(1.0, 0.0, lambda d: d == 0 or enough(d) > n)
    return (gained - lost) / n, low, high, detectable, needed if needed > n else None


def _of_numbers(
    differences: Sequence[float], level: float, coarse: float, bounded: bool
) -> tuple[float, float, float, float, int | None]:
    n, mean = len(differences), fmean(differences)
    if n < 2:
        return mean, -math.inf, math.inf, math.inf, None
    low, high = t_interval(differences, level)
    if bounded and not any(differences):
        low, high = tango_interval(0, 0, n, level)  # bounded scores differ by no more than shares do
    spread, beta = stdev(differences), NormalDist().inv_cdf(POWER)
    detectable = (t_quantile(n - 1, level) + beta) * spread / math.sqrt(n)
    if detectable <= coarse:
        return mean, low, high, detectable, None
    needed = math.ceil(((_normal(level) + beta) * spread / coarse) ** 2) if coarse else None
    return mean, low, high, detectable, max(needed, n + 1) if needed else None


def _broken(mine: Quality, other: Quality, task: Task) -> Difference:
    """Where a score is no number: who has one is worse than who has none."""
    bad = [not all(map(math.isfinite, q.scores)) for q in (mine, other)]
    if all(bad):
        low, high = (0.0 if task.logarithmic else -math.inf), math.inf
        return Difference(math.nan, low, high, "not distinguishable", math.inf, len(mine.scores))
    up = bad[0] != task.higher_is_better
    end = math.inf if up else 0.0 if task.logarithmic else -math.inf
    return Difference(end, end, end, "worse" if bad[0] else "better", math.inf, len(mine.scores))


def _verdict(low: float, high: float, nothing: float, higher_is_better: bool) -> Verdict:
    if low <= nothing <= high:
        return "not distinguishable"
    return "better" if (low > nothing) == higher_is_better else "worse"


def _normal(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
