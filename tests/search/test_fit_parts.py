"""The parts of a search: shares that are kept, fronts, finalists, limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pith.core import InputError, StoreError
from pith.models import Loaded, load
from pith.search import fit
from pith.search.aim import Aim
from pith.search.loop import changed, fewer
from pith.search.sought import Tried
from pith.study import Store
from pith.tasks import Calibration, Quality
from search.fits import LENGTH, TASKS, Noted


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load("builtin")


def quality(value: float, scores: tuple[float, ...]) -> Quality:
    return Quality(value, value, value, len(scores), scores)


def test_the_share_that_is_kept_lies_between_chance_and_the_dense_model() -> None:
    from pith.search.kept import could_keep, kept, require_telling

    needle, perplexity = TASKS
    dense, half = quality(1.0, (1.0,) * 8), quality(0.6, (1.0,) * 5 + (0.0,) * 3)
    assert kept(needle, half, dense, Calibration(1.0, 0.2)) == pytest.approx(0.5)
    assert kept(needle, half, dense, Calibration(1.0, None)) == pytest.approx(0.6)
    assert kept(needle, quality(0.1, (0.0,) * 8), dense, Calibration(1.0, 0.2)) == 0
    assert kept(perplexity, quality(20.0, (3.0,) * 8), quality(10.0, (2.3,) * 8), Calibration(1.0, 500.0)) == 0.5
    assert kept(perplexity, quality(float("nan"), (float("nan"),) * 8), dense, Calibration(1.0, 500.0)) == 0
    assert could_keep(needle, half, dense, Calibration(1.0, None)) > 0.6
    assert could_keep(needle, quality(0.0, (0.0,) * 8), dense, Calibration(1.0, None)) < 0.7
    require_telling(needle, dense, Calibration(1.0, 0.25))
    with pytest.raises(InputError, match=r"tells nothing here: the dense model scores 0\.200 and chance 0\.250"):
        require_telling(needle, quality(0.2, (0.0,) * 8), Calibration(1.0, 0.25))
    with pytest.raises(InputError, match="tells nothing here"):
        require_telling(perplexity, quality(600.0, (6.4,) * 8), Calibration(1.0, 500.0))


def test_the_front_is_what_nothing_beats() -> None:
    ends = [(10, 0.9, 1.0), (12, 0.95, 1.0), (12, 0.9, 1.0), (11, 0.9, 0.5), (10, 0.9, 1.0), (9, 0.1, 2.0)]
    tried = [Tried(str(i), *end, 8) for i, end in enumerate(ends)]
    tried.append(Tried("given up", 1, 1.0, None, 4, given_up="a token takes 3.00x the dense model's time"))
    assert [t.on_front for t in fit.with_front(tried)] == [True, True, False, True, True, True, False]


def test_where_quality_is_as_good_the_faster_recipe_is_preferred() -> None:
    aim = Aim(memory=11, quality=0.9, tasks=TASKS)

    def order(**recipes: tuple[float, float, float]) -> list[str]:
        return sorted(recipes, key=lambda name: fit.preference(aim, *recipes[name]))

    assert order(slow=(9, 1.004, 6.0), fast=(10, 0.998, 1.5)) == ["fast", "slow"]
    assert order(fast=(10, 0.95, 1.0), good=(10, 0.97, 2.0)) == ["good", "fast"]
    assert order(large=(11, 1.0, 1.0), small=(10, 1.0, 1.0), heavy=(12, 1.0, 0.5)) == ["small", "large", "heavy"]


def test_finalists_meet_the_limits_first_and_are_then_the_nearest() -> None:
    aim = Aim(memory=11, quality=0.9, tasks=TASKS)
    tried = [Tried(name, memory, q, 1.0, 8, on_front=True) for name, memory, q in
             [("heavy", 12, 1.0), ("best", 11, 0.97), ("light", 9, 0.92), ("far", 5, 0.1)]]  # fmt: skip
    assert [t.recipe for t in fit.finalists(tried, aim)] == ["best", "light", "heavy", "far"]
    gone = [Tried("a", 20, None, None, 0, given_up="heavy"), Tried("b", 15, None, None, 0, given_up="heavy")]
    assert [t.recipe for t in fit.finalists(gone, aim)] == ["b", "a"]


def test_what_is_missed_is_said_in_words() -> None:
    aim = Aim(memory=10 << 20, quality=0.9, latency=1.0, tasks=TASKS)
    found = SimpleNamespace(memory=11 << 20, quality=0.5, latency=1.25)
    assert fit.misses_in_words(aim, found) == (  # type: ignore[arg-type]
        "it takes 11.0 MiB where 10.0 MiB are allowed; it keeps 0.500 of the quality where 0.9 is asked for; "
        "a decoded token takes 1.25x the dense model's time where 1x is allowed"
    )


def test_fewer_examples_and_other_seeds() -> None:
    needle, perplexity = TASKS
    assert [fewer(replace(needle, count=n)).count for n in (100, 40, 10, 3)] == [25, 10, 6, 3]  # type: ignore[attr-defined, call-arg]
    assert changed(perplexity, "seed", lambda seed: seed + 1) == replace(perplexity, seed=1)  # type: ignore[call-arg]
    assert changed(needle, "nothing_like_it", lambda value: value + 1) == needle


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"memory": None}, "nothing is limited"),
        (
            {"memory": 1 << 20, "among": ("eviction", "kivi")},
            "memory=1.00 MiB makes no sense: the weights alone take 13.* MiB, and no method that is searched",
        ),
        ({"memory": 1 << 20, "among": ("evictions",)}, "no contract or method is called 'evictions'"),
        ({"quality": 0.0}, "quality=0.0 makes no sense"),
        ({"quality": 1.5}, "quality=1.5 makes no sense"),
        ({"latency": 0.0}, "latency=0.0 makes no sense"),
        ({"batch": 0}, "batch=0 makes no sense"),
        ({"length": 5000}, "takes 5032 tokens"),
    ],
)
def test_an_aim_that_makes_no_sense_is_one_line(
    loaded: Loaded, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    aim = replace(Aim(memory=1 << 30, tasks=TASKS, length=LENGTH), **change)  # type: ignore[arg-type]
    with Store(tmp_path) as store, pytest.raises(InputError, match=said):
        fit.fit(loaded, aim, store, Noted())


def test_a_database_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pith.search.proposals import Proposals

    with Store(tmp_path) as store:
        monkeypatch.setattr(store, "url", "sqlite:////nowhere/at/all/study.sqlite")
        with pytest.raises(StoreError, match="cannot be read or written"):
            Proposals(store, "me", "a search", 0)
