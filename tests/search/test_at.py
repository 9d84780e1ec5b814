"""Equal measured budgets: what the recipes hold, and how long they take, is measured again here."""

from __future__ import annotations

import pytest

from pith.core import InputError, PithWarning, Recipe
from pith.measure.seconds import Run, run_once, timed_prompt
from pith.models import Loaded, Subject, load
from pith.search import at, recipes_at

LENGTH = 256
NBYTES = 300_000


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load("builtin")


def held(loaded: Loaded, recipe: Recipe) -> int:
    prompt = timed_prompt(loaded.tokenizer, LENGTH, 0)
    return run_once(Subject(loaded.model, loaded.tokenizer, recipe), prompt, tokens=1).prefill_bytes


def at_bytes(loaded: Loaded, *texts: str, nbytes: int = NBYTES) -> tuple[tuple[Recipe, ...], dict[str, str]]:
    return recipes_at(loaded, list(map(Recipe.parse, texts)), nbytes=nbytes, length=LENGTH)


@pytest.mark.parametrize("text", ["snapkv", "h2o(budget=0.9)", "ada_kv(key_norm)", "streaming_llm(start_size=2)"])
def test_a_range_is_used_up_to_two_percent_of_the_measured_bytes(loaded: Loaded, text: str) -> None:
    (dense, found), refused = at_bytes(loaded, text)
    assert not refused
    assert len(dense) == 0
    assert 0.98 * NBYTES <= held(loaded, found) <= NBYTES
    before = Recipe.parse(text).methods[0]
    after = found.methods[0]
    assert after.name == before.name
    assert Recipe.parse(str(found)) == found


def test_other_parameters_stay_as_they_are_written(loaded: Loaded) -> None:
    (_, found), _ = at_bytes(loaded, "snapkv(window=8, kernel=3)")
    assert "window=8, kernel=3" in str(found)


def test_of_choices_the_least_saving_one_that_fits_is_taken(loaded: Loaded) -> None:
    found, refused = at_bytes(loaded, "deco_quant", nbytes=200_000)
    assert [str(recipe) for recipe in found] == ["dense", "deco_quant()"]  # 4 bits; 8 hold more
    assert held(loaded, Recipe.parse("deco_quant(bits=8)")) > 200_000 >= held(loaded, found[1])
    assert not refused


def test_what_meets_a_wide_budget_saves_nothing(loaded: Loaded) -> None:
    found, _ = at_bytes(loaded, "tova", nbytes=100 << 20)
    assert str(found[1]) == "tova(budget=1.0)"


def test_the_dense_model_is_first_and_each_stands_once(loaded: Loaded) -> None:
    found, _ = at_bytes(loaded, "tova(budget=0.1)", "dense", "tova(budget=0.9)")
    assert [recipe.methods[0].name if len(recipe) else "dense" for recipe in found] == ["dense", "tova"]


def test_one_that_cannot_meet_it_says_what_it_reaches(loaded: Loaded) -> None:
    found, refused = at_bytes(loaded, "think", "kv_cache_int8", "recycled_attention", nbytes=100_000)
    assert [str(recipe) for recipe in found] == ["dense"]
    assert list(refused) == ["think()", "kv_cache_int8()", "recycled_attention()"]
    assert "at pruning_ratio=0.9, where it saves most, it holds" in refused["think()"]
    assert refused["kv_cache_int8()"].endswith("and has no parameter to turn")
    assert "after a prompt of 256 tokens" in refused["recycled_attention()"]


def test_a_recipe_that_the_model_cannot_take_says_why(loaded: Loaded) -> None:
    _, refused = at_bytes(loaded, "deco_quant(inner=7)")
    assert "inner is 7" in refused["deco_quant(inner=7)"]


def test_of_several_methods_the_first_with_a_knob_is_turned_and_that_is_said(loaded: Loaded) -> None:
    with pytest.warns(PithWarning, match=r"budget of snapkv is turned"):
        (_, found), _ = at_bytes(loaded, "kv_cache_int8 + snapkv", nbytes=150_000)
    assert [method.name for method in found] == ["kv_cache_int8", "snapkv"]
    assert 0.98 * 150_000 <= held(loaded, found) <= 150_000


def test_at_a_latency_the_median_of_the_pairs_decides(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, int]] = []

    def pairs(subject: Subject, dense: Subject, prompt: object, runs: int) -> tuple[list[Run], list[Run]]:
        budget = subject.recipe.methods[0].budget  # type: ignore[union-attr]
        asked.append((budget, runs))
        # one disturbed pair in each, which a mean would not forgive
        return [Run(1.0, t, 1, 1) for t in [9.0, *[0.5 + budget / 2] * (runs - 1)]], [Run(1.0, 1.0, 1, 1)] * runs

    monkeypatch.setattr(at, "run_pairs", pairs)
    found, refused = recipes_at(loaded, [Recipe.parse("snapkv")], latency=0.75, length=LENGTH)
    assert not refused
    assert 0.47 <= found[1].methods[0].budget <= 0.5  # type: ignore[attr-defined]
    assert asked[-1] == (found[1].methods[0].budget, at.FRESH_PAIRS)  # type: ignore[attr-defined]


def test_what_does_not_pass_afresh_gives_way_to_what_saves_more(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pairs(subject: Subject, dense: Subject, prompt: object, runs: int) -> tuple[list[Run], list[Run]]:
        budget = subject.recipe.methods[0].budget  # type: ignore[union-attr]
        slower = 0.2 if runs == at.FRESH_PAIRS else 0.0
        return [Run(1.0, budget + slower, 1, 1)] * runs, [Run(1.0, 1.0, 1, 1)] * runs

    monkeypatch.setattr(at, "run_pairs", pairs)
    found, refused = recipes_at(loaded, [Recipe.parse("snapkv")], latency=0.6, length=LENGTH)
    assert (not refused and found[1].methods[0].budget <= 0.4) or "not afresh" in refused["snapkv()"]  # type: ignore[attr-defined]
    _, refused = recipes_at(loaded, [Recipe.parse("snapkv")], latency=0.1, length=LENGTH)
    assert "not afresh" in refused["snapkv()"]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({}, "no budget is given"),
        ({"nbytes": 0}, "a budget of 0 bytes"),
        ({"latency": 0.0}, "a decode time of 0.0 times"),
        ({"nbytes": 1, "length": 10_000}, "takes 10032 tokens"),
    ],
)
def test_budgets_that_make_no_sense_are_one_line(loaded: Loaded, limits: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        recipes_at(loaded, [Recipe.parse("snapkv")], **limits)  # type: ignore[arg-type]
