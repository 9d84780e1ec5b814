"""The search: what it finds, what it gives up, and that a kill loses at most what is in hand."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from pith.core import InputError, Recipe, methods
from pith.measure import seconds, weight_bytes
from pith.measure.seconds import Run, run_once, timed_prompt
from pith.models import Loaded, Subject, load
from pith.models.smaller import subject
from pith.search import fit, loop, space
from pith.search.aim import Aim
from pith.search.sought import Sought
from pith.study import Store, Study, tasks_with
from search.fits import CACHE, GOOD, LENGTH, TASKS, Noted, fitted, share, unmeasured, weighed

TRIALS = 14


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
        study, sought = fitted(folder, watch, limit, TRIALS, loaded)
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
    assert watch.fresh == ["dense"], "the others take turns with it"


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
    assert sum(t.examples > 0 for t in tried) == TRIALS


def test_what_takes_too_much_comes_again_where_it_just_meets_the_limit(
    loaded: Loaded, limit: int, tmp_path: Path
) -> None:
    with unmeasured(), mock.patch.object(loop.Search, "_start", return_value=0.9):
        _, sought = fitted(tmp_path, Noted(), limit, 8, loaded)
    first, again = (t for t in sought.tried if t.recipe.startswith("kvzip(budget") and "+" not in t.recipe)
    assert first.recipe == "kvzip(budget=0.902)"
    assert str(first.given_up).startswith("it takes")
    assert again.memory is not None
    assert 0.97 < (again.memory - weight_bytes(loaded.model)) / (limit - weight_bytes(loaded.model)) <= 1


def test_the_same_search_repeats_nothing_and_a_longer_one_goes_on(
    found: tuple[Study, Sought, Path, Noted], loaded: Loaded, limit: int
) -> None:
    study, sought, folder, _ = found
    watch = Noted()
    with unmeasured():
        again, same = fitted(folder, watch, limit, TRIALS, loaded)
    assert (watch.trying, watch.fresh) == ([], [])
    assert same == sought
    assert again.measurements == study.measurements
    with unmeasured():
        _, longer = fitted(folder, watch, limit, TRIALS + 1, loaded)
    assert [t.recipe for t in longer.tried[: len(sought.tried)]] == [t.recipe for t in sought.tried]
    assert 0 < len(watch.trying) == len(longer.tried) - len(sought.tried)
    assert not {t.recipe for t in sought.tried} & set(watch.trying)


def test_equal_seeds_begin_alike(
    found: tuple[Study, Sought, Path, Noted], loaded: Loaded, limit: int, tmp_path: Path
) -> None:
    with unmeasured():
        _, other = fitted(tmp_path, Noted(), limit, TRIALS, loaded)
    assert other == found[1]


def test_a_search_that_nothing_meets_names_the_nearest(loaded: Loaded, tmp_path: Path) -> None:
    with unmeasured():
        _, sought = fitted(tmp_path, Noted(), weight_bytes(loaded.model) + 2000, 2, loaded)
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


def test_methods_that_the_model_cannot_take_are_not_tried(loaded: Loaded, limit: int, tmp_path: Path) -> None:
    def taking(subject: Subject, prompt: object, tokens: int = 32) -> Run:
        if "ada_kv" in str(subject.recipe):
            raise InputError("it cannot")
        return weighed(subject, prompt, tokens)

    with unmeasured(taking):
        _, sought = fitted(tmp_path, Noted(), limit, 8, loaded)
    names = {method.name for t in sought.tried for method in Recipe.parse(t.recipe)}
    assert "ada_kv" not in names
    assert len(names) > 3


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
    # what is tested is not how long things take
    monkeypatch.setattr(seconds, "LONGER", 0.0)
    monkeypatch.setattr(loop, "PAIRS", 1)
    for where in (space, loop):
        monkeypatch.setattr(where, "methods", lambda: few)
    run = run_once(Subject(loaded.model, loaded.tokenizer), timed_prompt(loaded.tokenizer, LENGTH, 0))
    memory = weight_bytes(loaded.model) + int(0.8 * run.decoded_bytes)
    tasks = tasks_with("needle(length=96, count=6),perplexity(length=96, scored=8, count=4)", {})
    aim = Aim(memory=memory, quality=0.9, tasks=tasks, length=LENGTH)
    with Store(tmp_path) as store:
        _, sought = fit.fit(loaded, aim, store, Noted(), trials=2, runs=1)
    assert sought.found == "kv_cache_int8()"
    assert sought.reached is not None
    held = run_once(
        Subject(loaded.model, loaded.tokenizer, Recipe.parse(sought.found)), timed_prompt(loaded.tokenizer, LENGTH, 1)
    )
    assert sought.reached.memory == weight_bytes(loaded.model) + max(held.prefill_bytes, held.decoded_bytes) <= memory
    assert sought.reached.quality >= 0.9


def test_where_even_the_weights_take_too_much_methods_that_change_them_are_searched(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seconds, "LONGER", 0.0)
    monkeypatch.setattr(loop, "PAIRS", 1)
    weights = weight_bytes(loaded.model)
    tasks = tasks_with("perplexity(length=96, scored=8, count=6)", {})
    aim = Aim(memory=int(0.5 * weights), quality=0.5, tasks=tasks, length=LENGTH, among=("rtn", "kv_cache_int8"))
    with Store(tmp_path) as store:
        _, sought = fit.fit(loaded, aim, store, Noted(), trials=2, runs=1)
    assert sought.found is not None
    assert not [t for t in sought.tried if t.recipe == "kv_cache_int8()"], "no cache is small enough"
    found = Recipe.parse(sought.found)
    assert [method.name for method in found.weights] == ["rtn"]
    examined = subject(loaded, found)
    held = run_once(examined, timed_prompt(loaded.tokenizer, LENGTH, 1))
    assert sought.reached is not None
    memory = weight_bytes(examined.model) + max(held.prefill_bytes, held.decoded_bytes)
    assert sought.reached.memory == memory <= aim.memory < weights


def test_as_many_sequences_take_as_many_caches(loaded: Loaded, tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        one, four = (
            loop.Search(loaded, Aim(memory=1 << 30, tasks=TASKS, length=LENGTH, batch=batch), store, Noted())
            for batch in (1, 4)
        )
    weights = weight_bytes(loaded.model)
    assert four.dense_memory - weights == 4 * (one.dense_memory - weights)
    prompt = timed_prompt(loaded.tokenizer, LENGTH, 0).expand(4, -1)
    run = run_once(Subject(loaded.model, loaded.tokenizer), prompt)
    assert four.dense_memory - weights == pytest.approx(run.decoded_bytes, rel=0.01)
