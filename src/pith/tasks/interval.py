"""Confidence intervals, of 95 % unless another level is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, fmean, stdev

LEVEL = 0.95


def wilson_interval(hits: float | int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a share; it holds its level at shares near 0 and 1 too.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),  p = hits / n
    """
    p, z = hits / n, NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # at p = 0 and p = 1 the interval ends there; rounding must not say otherwise
    low = 0.0 if hits == 0 else (middle - half) / (1 + z * z / n)
    high = 1.0 if hits == n else (middle + half) / (1 + z * z / n)
    return low, high


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Student's interval of the mean of at least two independent values: mean -+ t s / sqrt(n).

    It is infinite if a value is not finite.
    """
    if not all(map(math.isfinite, values)):
        return -math.inf, math.inf
    mean, half = fmean(values), t_quantile(len(values) - 1, level) * stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


@lru_cache(maxsize=4096)  # a comparison asks for the same few of them a thousand times
def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """The t with P(|T| <= t) = `level` for a whole number of degrees of freedom.

    It is sqrt(freedom) tan(angle) for the angle at which the closed form of that probability (Abramowitz and Stegun,
    26.7.3 and 26.7.4), which grows with the angle, is the level.
    """
    low, high = 0.0, math.pi / 2
    while high - low > 1e-15:
        middle = (low + high) / 2
        low, high = (middle, high) if _two_sided(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _two_sided(angle: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(angle))."""
    odd, squared = freedom % 2, math.cos(angle) ** 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(1 + odd, freedom - 2, 2):
        term *= squared * k / (k + 1)
        total += term
    if not odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))
