"""Intervals agree with published tables, and hold their level."""

from __future__ import annotations

from random import Random

import pytest

from pith.tasks.interval import t_interval, t_quantile, wilson_interval


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (7, 2.3646), (15, 2.1314), (30, 2.0423), (120, 1.9799)],
)
def test_t_quantiles_are_the_tables(freedom: int, quantile: float) -> None:
    assert t_quantile(freedom) == pytest.approx(quantile, abs=5e-5)


def test_t_interval() -> None:
    low, high = t_interval([1.0, 2.0, 3.0, 4.0])
    # mean 2.5, s = sqrt(5 / 3), t = 3.1824: half = 3.1824 * 1.29099 / 2
    assert (low, high) == (pytest.approx(2.5 - 2.05426, abs=1e-4), pytest.approx(2.5 + 2.05426, abs=1e-4))
    assert t_interval([2.0, 2.0]) == (2.0, 2.0)


def test_t_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = Random(0)
    held = 0
    for _ in range(2000):
        low, high = t_interval([rng.gauss(0, 1) for _ in range(4)])
        held += low <= 0 <= high
    assert 0.935 <= held / 2000 <= 0.965


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 10, 0.0, 0.27753), (45, 50, 0.78640, 0.95652), (10, 10, 0.72247, 1.0), (1, 2, 0.09453, 0.90547)],
)
def test_wilson_interval(hits: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(hits, n) == (pytest.approx(low, abs=1e-5), pytest.approx(high, abs=1e-5))
    assert wilson_interval(n - hits, n) == (pytest.approx(1 - high, abs=1e-5), pytest.approx(1 - low, abs=1e-5))
