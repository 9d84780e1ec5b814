"""The search: what it finds, what it gives up, and that a kill loses at most what is in hand."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pith.core import InputError, Recipe, StoreError, methods
from pith.measure import seconds, weight_bytes
from pith.measure.seconds import Run, run_once, timed_prompt
from pith.models import Loaded, Subject, load
from pith.study import Store, Study, fit, search, space, tasks_with
from pith.study.search import Aim, changed, fewer
from pith.study.sought import Sought, Tried
from pith.tasks import Calibration, Quality
from study import fits
from study.fits import CACHE, GOOD, LENGTH, TASKS, Noted, fitted, share, unmeasured, weighed


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load("builtin")


@pytest.fixture(scope="module")
def limit(loaded: Loaded) -> int:
    """The weights and 40 % of the dense cache."""
    return weight_bytes(loaded.model) + int(0.4 * CACHE)


@pytest.fixture(scope="module")
def found(loaded: Loaded, limit: int, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Sought, Path, Noted]:
    folder, watch = tmp_path_factory.mktemp("fit"), Noted()
    with unmeasured():
        study, sought = fitted(folder, watch, limit, 20, loaded)
    return study, sought, folder, watch


def test_it_finds_the_recipe_that_meets_the_limits(
    found: tuple[Study, Sought, Path, Noted], loaded: Loaded, limit: int
) -> None:
    study, sought, _, _ = found
    assert sought.dense_memory > limit
    assert sought.found is not None
    assert {method.name for method in Recipe.parse(sought.found)} <= set(GOOD)
    assert (sought.nearest, sought.misses) == (sought.found, "")
    assert sought.reached is not None
    assert sought.reached.quality == pytest.approx(1.0)
    held = share(Recipe.parse(sought.found)) * CACHE
    assert sought.reached.memory == weight_bytes(loaded.model) + int(held) + 1000 <= limit
    assert shlex.split(sought.command) == ["pith", "generate", "builtin", fit.PROMPT, "--recipe", sought.found]
    assert sought.found in study.measurements


def test_what_is_found_was_measured_on_examples_that_the_search_did_not_see(
    found: tuple[Study, Sought, Path, Noted],
) -> None:
    study, sought, _, watch = found
    assert study.question.tasks == tuple(replace(task, **{"seed": 1}) for task in TASKS)  # noqa: PIE804
    assert study.question.costs["seed"] == 1
    assert set(study.measurements) <= {t.recipe for t in sought.tried if t.on_front} | {"dense"}
    assert watch.fresh == list(study.measurements)


def test_hopeless_recipes_are_given_up_by_their_bytes_or_by_few_examples(
    found: tuple[Study, Sought, Path, Noted], limit: int
) -> None:
    tried = found[1].tried
    heavy = [t for t in tried if t.memory is not None and t.memory > limit]
    poor = [t for t in tried if t.given_up == "10 examples show that it keeps less"]
    done = [t for t in tried if t.given_up is None]
    assert heavy
    assert all(t.examples == 0 and t.quality is None and str(t.given_up).startswith("it takes") for t in heavy)
    assert poor
    assert all(t.quality is not None and t.quality < 0.98 and t.latency is None for t in poor)
    assert done
    assert all(t.latency is not None and t.quality is not None and t.examples == 16 for t in done)
    assert len({t.recipe for t in tried}) == len(tried)
    assert sum(t.examples > 0 for t in tried) == 20


def test_what_takes_too_much_comes_again_where_it_just_meets_the_limit(
    found: tuple[Study, Sought, Path, Noted], limit: int, loaded: Loaded
) -> None:
    budgets = {
        t.recipe: t.memory for t in found[1].tried if t.recipe.startswith("kvzip(budget") and "+" not in t.recipe
    }
    cache = limit - weight_bytes(loaded.model)
    held = [memory - weight_bytes(loaded.model) for memory in budgets.values() if memory]
    assert max(held) > cache
    assert any(0.97 * cache <= one <= cache for one in held)


def test_the_same_search_repeats_nothing_and_a_longer_one_goes_on(
    found: tuple[Study, Sought, Path, Noted], loaded: Loaded, limit: int
) -> None:
    study, sought, folder, _ = found
    watch = Noted()
    with unmeasured():
        again, same = fitted(folder, watch, limit, 20, loaded)
    assert (watch.trying, watch.fresh) == ([], [])
    assert same == sought
    assert again.measurements == study.measurements
    with unmeasured():
        _, longer = fitted(folder, watch, limit, 21, loaded)
    assert [t.recipe for t in longer.tried[: len(sought.tried)]] == [t.recipe for t in sought.tried]
    assert 0 < len(watch.trying) == len(longer.tried) - len(sought.tried)
    assert not {t.recipe for t in sought.tried} & set(watch.trying)


def test_equal_seeds_begin_alike(
    found: tuple[Study, Sought, Path, Noted], loaded: Loaded, limit: int, tmp_path: Path
) -> None:
    with unmeasured():
        _, other = fitted(tmp_path, Noted(), limit, 20, loaded)
    assert other == found[1]


def test_a_search_that_nothing_meets_names_the_nearest(loaded: Loaded, tmp_path: Path) -> None:
    with unmeasured():
        _, sought = fitted(tmp_path, Noted(), weight_bytes(loaded.model) + 2000, 6, loaded)
    assert sought.found is None
    assert sought.nearest in {t.recipe for t in sought.tried}
    assert sought.misses.startswith("it takes")
    assert all(t.given_up for t in sought.tried)


def test_where_the_dense_model_meets_all_limits_nothing_is_searched(loaded: Loaded, tmp_path: Path) -> None:
    watch = Noted()
    with unmeasured():
        study, sought = fitted(tmp_path, watch, 1 << 40, 5, loaded)
    assert (sought.found, sought.tried, watch.trying) == ("dense", (), [])
    assert list(study.measurements) == ["dense"]


def test_killed_at_any_moment_it_goes_on_and_tries_nothing_twice(tmp_path: Path, limit: int, loaded: Loaded) -> None:
    log, folder = tmp_path / "log", tmp_path / "study"
    command = [sys.executable, fits.__file__, str(folder), str(log), str(limit), "12"]
    environment = os.environ | {"PYTHONPATH": str(Path(fits.__file__).parents[1])}
    for done in (3, 12):
        child = subprocess.Popen(command, env=environment)
        try:
            while child.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < done):
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL
        finally:
            child.kill()
    logged, watch = log.read_text().splitlines(), Noted()
    with unmeasured():
        _, sought = fitted(folder, watch, limit, 12, loaded)
    # a kill takes at most the line of the recipe in hand, whose outcome was stored or is tried again
    assert len(set(logged)) == len(logged) >= 12
    assert not set(logged) & set(watch.trying)
    assert set(logged) <= {t.recipe for t in sought.tried}
    assert len({t.recipe for t in sought.tried}) == len(sought.tried) <= len(logged) + len(watch.trying) + 2
    assert sought.found is not None


def test_what_ends_the_process_twice_is_given_up(loaded: Loaded, limit: int, tmp_path: Path) -> None:
    class Killed(BaseException):
        """What nothing catches, as a kill is not caught."""

    def poison(subject: Subject, prompt: object, tokens: int = 32) -> Run:
        if "deco_quant" in str(subject.recipe) and tokens > 1:
            raise Killed
        return weighed(subject, prompt, tokens)

    with unmeasured(poison):
        for _ in range(2):
            with pytest.raises(Killed):
                fitted(tmp_path, Noted(), limit, 5, loaded)
        _, sought = fitted(tmp_path, Noted(), limit, 5, loaded)
    [lost] = [t for t in sought.tried if t.memory is None]
    assert lost.recipe.startswith("deco_quant")
    assert lost.given_up == "the process ended twice while it was tried"


def test_methods_that_the_model_cannot_take_are_not_tried(loaded: Loaded, limit: int, tmp_path: Path) -> None:
    def taking(subject: Subject, prompt: object, tokens: int = 32) -> Run:
        if "ada_kv" in str(subject.recipe):
            raise InputError("it cannot")
        return weighed(subject, prompt, tokens)

    with unmeasured(taking):
        _, sought = fitted(tmp_path, Noted(), limit, 8, loaded)
    names = {method.name for t in sought.tried for method in Recipe.parse(t.recipe)}
    assert "ada_kv" not in names
    assert len(names) > 5


def test_a_recipe_that_the_model_cannot_take_is_given_up_with_the_reason(
    loaded: Loaded, limit: int, tmp_path: Path
) -> None:
    def taking(subject: Subject, prompt: object, tokens: int = 32) -> Run:
        if "kivi" in str(subject.recipe) and tokens > 1:
            raise InputError("heads are too small")
        return weighed(subject, prompt, tokens)

    with unmeasured(taking):
        _, sought = fitted(tmp_path, Noted(), limit, 8, loaded)
    assert {t.given_up for t in sought.tried if t.recipe.startswith("kivi")} == {"heads are too small"}


def test_on_the_built_in_model_with_everything_measured(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: method for name, method in methods().items() if name in ("kv_cache_int8", "key_norm")}
    monkeypatch.setattr(seconds, "LONGER", 0.0)  # what is tested is not how long things take
    for where in (space, search):
        monkeypatch.setattr(where, "methods", lambda: few)
    run = run_once(Subject(loaded.model, loaded.tokenizer), timed_prompt(loaded.tokenizer, LENGTH, 0))
    memory = weight_bytes(loaded.model) + run.decoded_bytes // 2
    tasks = tasks_with("needle(length=96, count=6),perplexity(length=96, scored=8, count=4)", {})
    aim = Aim(memory=memory, quality=0.9, tasks=tasks, length=LENGTH)
    with Store(tmp_path) as store:
        _, sought = fit.fit(loaded, aim, store, Noted(), trials=2)
    assert sought.found == "kv_cache_int8()"
    assert sought.reached is not None
    held = run_once(
        Subject(loaded.model, loaded.tokenizer, Recipe.parse(sought.found)), timed_prompt(loaded.tokenizer, LENGTH, 1)
    )
    assert sought.reached.memory == weight_bytes(loaded.model) + max(held.prefill_bytes, held.decoded_bytes) <= memory
    assert sought.reached.quality >= 0.9


def quality(value: float, scores: tuple[float, ...]) -> Quality:
    return Quality(value, value, value, len(scores), scores)


def test_the_share_that_is_kept_lies_between_chance_and_the_dense_model() -> None:
    from pith.study.kept import could_keep, kept, require_telling

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
        ({"memory": 1 << 20}, "memory=1.00 MiB makes no sense: the weights alone take 13"),
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


def test_a_database_that_fails_is_one_line() -> None:
    from pith.study.proposals import Proposals

    with pytest.raises(StoreError, match="cannot be read or written"):
        Proposals("sqlite:////nowhere/at/all/study.sqlite", "a search", 0)


def test_as_many_sequences_take_as_many_caches(loaded: Loaded, tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        one, four = (
            search.Search(loaded, Aim(memory=1 << 30, tasks=TASKS, length=LENGTH, batch=batch), store, Noted())
            for batch in (1, 4)
        )
    weights = weight_bytes(loaded.model)
    assert four.dense_memory - weights == 4 * (one.dense_memory - weights)
    prompt = timed_prompt(loaded.tokenizer, LENGTH, 0).expand(4, -1)
    run = run_once(Subject(loaded.model, loaded.tokenizer), prompt)
    assert four.dense_memory - weights == pytest.approx(run.decoded_bytes, rel=0.01)
