"""The space of recipes, built by a chooser that is told or that guesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest

import pith
from pith.cache.ada_kv import AdaKV
from pith.cache.snapkv import SnapKV
from pith.core import InputError, PithError, Recipe
from pith.search.space import NONE, contracts, inside, knob, lower, places, space


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
    found = space([*pith.methods()])
    assert sorted(name for names in found.names.values() for name in names) == sorted(pith.methods())
    assert all(pith.methods()[name].question == q for q, names in found.names.items() for name in names)


def test_methods_may_be_left_out() -> None:
    assert "snapkv" not in [name for names in space([*pith.methods()], ["snapkv"]).names.values() for name in names]


def test_nothing_chosen_is_the_dense_model() -> None:
    assert space([*pith.methods()]).build(Told({})) == Recipe()


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
    found, recipe = space([*pith.methods()]), Recipe.parse(text)
    chooser = Told(found.decisions(recipe))
    assert found.build(chooser) == recipe
    assert set(chooser.asked) == set(chooser.answers)  # nothing was left open


def test_a_range_of_which_one_end_is_many_times_the_other_is_searched_by_the_logarithm() -> None:
    chooser = Told({"which kept pairs does a query read?": "recycled_attention", "which pairs are kept?": "lag_kv"})
    space([*pith.methods()]).build(chooser)
    assert chooser.asked["recycled_attention.k"] == (32, 4096, True)
    assert chooser.asked["lag_kv.ratio"] == (0.0, 1.0, False)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_built_by_chance_is_a_recipe_that_its_text_gives_again_or_is_refused(seed: int) -> None:
    try:
        found = space([*pith.methods()]).build(Guessing(seed))
    except PithError:
        return
    assert Recipe.parse(str(found)) == found
    assert len({method.question for method in found}) == len(found)


def test_every_method_stands_alone_once_and_the_questions_take_turns() -> None:
    found = space([*pith.methods()])
    alone = found.alone(lambda method: 0.5)
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


def test_what_trains_is_searched_only_where_it_is_named() -> None:
    trains = {name for name, method in pith.methods().items() if getattr(method, "trains", False)}
    assert {"amq", "bit_distiller", "reallm", "to_moe"} <= trains
    assert not trains & {*space(contracts(weights=True)).weights}
    named = space(["quantization", "bit_distiller"])
    assert {"rtn", "gptq", "bit_distiller"} <= {*named.weights}
    assert "amq" not in named.weights
    assert list(named.names) == [pith.methods()["rtn"].question]
    with pytest.raises(InputError, match="no contract or method is called 'quantisation'; did you mean 'quantization'"):
        space(["quantisation"])


def test_the_contracts_are_told_apart_by_what_they_change() -> None:
    assert contracts(weights=True) == ["pruning", "quantization"]
    assert "eviction" in contracts(weights=False)
    assert not space(contracts(weights=False)).weights
    assert not space(["eviction", "rtn"]).reads_texts
    assert space(["gptq"]).reads_texts


def test_what_removes_weights_stands_before_what_packs_them() -> None:
    found = space(["rtn", "wanda", "snapkv"])
    picked = {pith.methods()[name].question: name for name in ("rtn", "wanda", "snapkv")}
    recipe = found.build(Told(picked))
    assert [method.name for method in recipe] == ["wanda", "rtn", "snapkv"]
    again = found.build(Told(found.decisions(recipe)))
    assert again == recipe


def test_a_method_may_be_left_out_where_it_stands_alone() -> None:
    alone = space(["snapkv", "rtn"]).alone(lambda method: 0.9 if method.name == "rtn" else None)
    assert [str(recipe) for recipe in alone] == ["rtn(bits=8)"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("rtn(bits=8)", "rtn(bits=4)"),
        ("rtn(bits=3) + snapkv(budget=0.5)", "rtn(bits=2) + snapkv(budget=0.5)"),
        ("rtn(bits=2)", None),
        ("snapkv", None),
        ("rtn(bits={'*.down_proj': 8, '*': 4})", None),
    ],
)
def test_what_is_too_heavy_comes_again_with_fewer_bits(before: str, after: str | None) -> None:
    found = lower(Recipe.parse(before))
    assert (found and str(found)) == (after and str(Recipe.parse(after)))
