from __future__ import annotations

import math
import random
from statistics import NormalDist, fmean, stdev

import pytest

from pith.core import InputError
from pith.tasks import Needle, Perplexity, Quality
from pith.tasks.interval import t_interval, t_quantile
from pith.tasks.paired import COARSE, paired, tango_interval

NEEDLE, PERPLEXITY = Needle(), Perplexity()


def quality(scores: list[float]) -> Quality:
    return Quality(fmean(scores), 0.0, 1.0, len(scores), tuple(scores))


def shares(gained: int, lost: int, both: int, neither: int) -> tuple[Quality, Quality]:
    mine = [1.0] * gained + [0.0] * lost + [1.0] * both + [0.0] * neither
    other = [0.0] * gained + [1.0] * lost + [1.0] * both + [0.0] * neither
    return quality(mine), quality(other)


def tango_by_scan(gained: int, lost: int, n: int, z: float) -> tuple[float, float]:
    """Every difference on a fine grid whose score statistic, with the nuisance found by a scan too, is within z."""
    inside = []
    for step in range(-1999, 2000):
        d = step / 2000
        best = max(
            (q / 4000 for q in range(4001) if q / 4000 + d > 0 and 2 * q / 4000 + d < 1),
            key=lambda q: _likelihood(gained, lost, n, q, d),
            default=None,
        )
        if best is None:
            continue
        variance = n * (2 * best + d * (1 - d))
        if variance > 0 and abs(gained - lost - n * d) <= z * math.sqrt(variance):
            inside.append(d)
    return min(inside), max(inside)


def _likelihood(gained: int, lost: int, n: int, q: float, d: float) -> float:
    def term(count: int, p: float) -> float:
        return 0.0 if not count else count * math.log(p) if p > 0 else -math.inf

    return term(gained, q + d) + term(lost, q) + term(n - gained - lost, 1 - 2 * q - d)


@pytest.mark.parametrize(("gained", "lost", "n"), [(9, 2, 30), (0, 5, 20)])
def test_the_interval_of_shares_is_the_score_tests_inversion(gained: int, lost: int, n: int) -> None:
    assert tango_interval(gained, lost, n) == pytest.approx(tango_by_scan(gained, lost, n, 1.95996), abs=0.003)


@pytest.mark.parametrize("n", [20, 50])
@pytest.mark.parametrize("level", [0.95, 0.9975])
@pytest.mark.parametrize("p", [(0.0, 0.0), (0.02, 0.02), (0.2, 0.2), (0.3, 0.1), (0.1, 0.0)])
def test_the_interval_of_shares_holds_its_level(n: int, level: float, p: tuple[float, float]) -> None:
    draw, rounds = random.Random(n), 1500
    counts: dict[tuple[int, int], int] = {}
    for _ in range(rounds):
        found = [draw.random() for _ in range(n)]
        pair = sum(u < p[0] for u in found), sum(p[0] <= u < sum(p) for u in found)
        counts[pair] = counts.get(pair, 0) + 1
    held = 0
    for (gained, lost), times in counts.items():
        low, high = tango_interval(gained, lost, n, level)
        held += times * (low - 1e-9 <= p[0] - p[1] <= high + 1e-9)
    # three standard errors of so many rounds, and the half point by which a score interval may fall short
    assert held / rounds >= level - 3 * math.sqrt(level * (1 - level) / rounds) - 0.005


def test_where_no_example_tells_them_apart_the_interval_still_has_a_width() -> None:
    z = NormalDist().inv_cdf(0.975)
    found = paired(*shares(0, 0, 20, 0), NEEDLE)
    assert (found.low, found.high) == pytest.approx((-z * z / (20 + z * z), z * z / (20 + z * z)))
    assert found.verdict == "not distinguishable"


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 0), (4, 0), (0, 4), (12, 3), (3, 12), (8, 6)])
@pytest.mark.parametrize("comparisons", [1, 12])
def test_the_verdict_is_whether_the_interval_leaves_out_zero(gained: int, lost: int, comparisons: int) -> None:
    found = paired(*shares(gained, lost, 20, 5), NEEDLE, comparisons)
    # the inversion of McNemar's score test, by hand
    z = NormalDist().inv_cdf(1 - 0.025 / comparisons)
    tells = (gained - lost) ** 2 > z * z * (gained + lost)
    assert (found.verdict != "not distinguishable") == tells == (not found.low <= 0 <= found.high)
    if tells:
        assert found.verdict == ("better" if gained > lost else "worse")


def test_more_comparisons_widen_every_interval() -> None:
    one, many = (paired(*shares(9, 1, 20, 10), NEEDLE, comparisons) for comparisons in (1, 40))
    assert many.low < one.low < one.value < one.high < many.high
    assert (one.verdict, many.verdict) == ("better", "not distinguishable")


def test_losses_are_compared_as_a_ratio_of_perplexities() -> None:
    other = quality([2.0 + 0.1 * i for i in range(16)])
    mine = quality([s + 0.05 + 0.01 * (i % 2) for i, s in enumerate(other.scores)])
    differences = [a - b for a, b in zip(mine.scores, other.scores, strict=True)]
    found = paired(mine, other, PERPLEXITY, comparisons=3)
    low, high = t_interval(differences, 1 - 0.05 / 3)
    assert (found.value, found.low, found.high) == pytest.approx(
        (math.exp(fmean(differences)), math.exp(low), math.exp(high))
    )
    assert found.verdict == "worse"
    assert paired(other, mine, PERPLEXITY).verdict == "better"
    half = (t_quantile(15, 1 - 0.05 / 3) + NormalDist().inv_cdf(0.8)) * stdev(differences) / 4
    assert found.detectable == pytest.approx(math.exp(half))
    assert found.needed is None


def test_shares_between_0_and_1_are_compared_by_students_t() -> None:
    mine, other = quality([0.5, 0.75, 1.0, 0.25, 0.5]), quality([0.75, 0.75, 1.0, 0.5, 0.5])
    found = paired(mine, other, NEEDLE)
    assert (found.low, found.high) == pytest.approx(t_interval([-0.25, 0.0, 0.0, -0.25, 0.0]))
    same = paired(mine, mine, NEEDLE)
    assert same.low < 0 < same.high


def test_differences_of_rounding_are_none() -> None:
    other = quality([2.0 + 0.1 * i for i in range(16)])
    mine = quality([s + 1e-7 for s in other.scores])
    found = paired(mine, other, PERPLEXITY)
    assert (found.value, found.verdict) == (1.0, "not distinguishable")


def test_a_score_that_is_no_number_is_worse_than_any() -> None:
    good, bad = quality([2.0, 2.1, 2.2]), quality([2.0, math.inf, 2.2])
    assert paired(bad, good, PERPLEXITY).verdict == "worse"
    assert paired(good, bad, PERPLEXITY).verdict == "better"
    assert paired(bad, bad, PERPLEXITY).verdict == "not distinguishable"
    assert paired(quality([math.nan, 1.0]), quality([1.0, 1.0]), NEEDLE).verdict == "worse"


def test_what_can_be_told_is_told_four_times_of_five() -> None:
    """A difference of the size that is called detectable is found with a chance near the power stated."""
    draw, n = random.Random(0), 60
    size = paired(*shares(6, 6, 40, 8), NEEDLE).detectable
    gain, loss = 0.1 + size / 2, 0.1 - size / 2  # a fifth of the examples differ, as above
    assert loss > 0
    found = 0
    for _ in range(400):
        drawn = [draw.random() for _ in range(n)]
        gained, lost = sum(u < gain for u in drawn), sum(u > 1 - loss for u in drawn)
        found += paired(*shares(gained, lost, n - gained - lost, 0), NEEDLE).verdict == "better"
    assert 0.7 < found / 400 < 0.95


def test_too_few_examples_say_how_many_would_do() -> None:
    few = paired(*shares(1, 1, 17, 1), NEEDLE, comparisons=6)
    assert few.detectable > COARSE
    assert few.needed is not None
    assert few.needed > 20
    enough = paired(*shares(1, 1, few.needed - 2, 0), NEEDLE, comparisons=6)
    assert enough.detectable <= COARSE
    assert enough.needed is None
    assert paired(*shares(0, 0, 2, 0), NEEDLE, comparisons=100).detectable == math.inf


def test_one_example_tells_nothing() -> None:
    one, other = quality([0.5]), quality([0.25])
    assert paired(one, other, NEEDLE).verdict == "not distinguishable"
    assert paired(quality([1.0]), quality([0.0]), NEEDLE).verdict == "not distinguishable"


def test_unequal_numbers_of_examples_cannot_be_paired() -> None:
    with pytest.raises(InputError, match="2 scores cannot be paired with 1"):
        paired(quality([0.0, 1.0]), quality([1.0]), NEEDLE)
