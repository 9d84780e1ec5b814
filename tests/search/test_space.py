"""The space of recipes, built by a chooser that is told or that guesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest

import pith
from pith.cache.ada_kv import AdaKV
from pith.cache.snapkv import SnapKV
from pith.core import PithError, Recipe
from pith.search.space import NONE, inside, knob, places, space


class Told:
    """Answers as it was told; takes the first of what it was not told."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers
        self.asked: dict[str, Any] = {}

    def choice(self, name: str, options: Sequence[Any]) -> Any:
        self.asked[name] = tuple(options)
        return self.answers.get(name, options[0])

    def number(self, name: str, low: float, high: float, log: bool) -> float | int:
        self.asked[name] = (low, high, log)
        return self.answers.get(name, low)  # type: ignore[no-any-return]


class Guessing(Told):
    """Answers by chance."""

    def __init__(self, seed: int) -> None:
        super().__init__({})
        self.random = Random(seed)

    def choice(self, name: str, options: Sequence[Any]) -> Any:
        return self.random.choice(options)

    def number(self, name: str, low: float, high: float, log: bool) -> float | int:
        return self.random.randint(low, high) if isinstance(low, int) else self.random.uniform(low, high)  # type: ignore[arg-type]


def test_every_registered_method_is_in_it_under_its_question() -> None:
    found = space()
    assert sorted(name for names in found.names.values() for name in names) == sorted(pith.methods())
    assert all(pith.methods()[name].question == q for q, names in found.names.items() for name in names)


def test_methods_may_be_left_out() -> None:
    assert "snapkv" not in [name for names in space(without=["snapkv"]).names.values() for name in names]


def test_nothing_chosen_is_the_dense_model() -> None:
    assert space().build(Told({})) == Recipe()


@pytest.mark.parametrize(
    "text",
    [
        "snapkv(budget=0.25)",
        "kv_cache_int8()",
        "ada_kv(expected_attention(budget=0.123), floor_alpha=0.5)",
        "h2o(budget=0.4, recent_share=0.75) + kivi(bits=4, group_size=16)",
        "quest(token_budget=0.3, page_size=8, skip_layers=0) + deco_quant(bits=8)",
    ],
)
def test_the_decisions_of_a_recipe_build_it_again(text: str) -> None:
    found, recipe = space(), Recipe.parse(text)
    chooser = Told(found.decisions(recipe))
    assert found.build(chooser) == recipe
    assert set(chooser.asked) == set(chooser.answers)  # nothing was left open


def test_a_range_of_which_one_end_is_many_times_the_other_is_searched_by_the_logarithm() -> None:
    chooser = Told({"which kept pairs does a query read?": "recycled_attention", "which pairs are kept?": "lag_kv"})
    space().build(chooser)
    assert chooser.asked["recycled_attention.k"] == (32, 4096, True)
    assert chooser.asked["lag_kv.ratio"] == (0.0, 1.0, False)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_built_by_chance_is_a_recipe_that_its_text_gives_again_or_is_refused(seed: int) -> None:
    try:
        found = space().build(Guessing(seed))
    except PithError:
        return
    assert Recipe.parse(str(found)) == found
    assert len({method.question for method in found}) == len(found)


def test_every_method_stands_alone_once_and_the_questions_take_turns() -> None:
    found = space()
    alone = found.alone(0.5)
    assert sorted(recipe.methods[0].name for recipe in alone) == sorted(pith.methods())
    first = [recipe.methods[0].question for recipe in alone[: len(found.names)]]
    assert sorted(first) == sorted(found.names)
    assert str(next(r for r in alone if r.methods[0].name == "tova")) == "tova(budget=0.51)"


def test_what_stands_in_another_method_is_what_it_takes_and_holds_none_itself() -> None:
    [parameter] = [p for p in AdaKV.parameters() if p.takes]
    found = inside(AdaKV(), parameter)
    assert "snapkv" in found
    assert not {"ada_kv", "pyramid_kv", "sir_llm", "kivi"} & set(found)


def test_the_knob_of_a_method_around_another_is_the_inner_ones() -> None:
    method = AdaKV(of=SnapKV(budget=0.4))
    found = knob(method)
    assert found is not None
    assert found.path == ("of", "budget")
    assert found.value(method) == 0.4
    assert found.put(method, 0.2) == AdaKV(of=SnapKV(budget=0.2))
    assert [place.path[-1] for place in places(method)] == ["budget", "window", "kernel", "floor_alpha"]


def test_none_is_no_methods_name() -> None:
    assert NONE not in pith.methods()
