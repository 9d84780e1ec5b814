"""A method's parameter may be a method: in Python, as text and as TOML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.families import Coarse, PerHead, PerLayer, registered
from pith.attention import Retention
from pith.cache.random_eviction import RandomEviction
from pith.cache.snapkv import SnapKV
from pith.core import Method, ParameterError, PithError, Recipe, RecipeSyntaxError, UnknownMethodError, param


@pytest.fixture(autouse=True)
def _stand_ins() -> Iterator[None]:
    with registered():
        yield


RECIPES = {
    "per_head()": PerHead(),
    "per_head(snapkv(budget=0.25), floor=0.2)": PerHead(of=SnapKV(budget=0.25), floor=0.2),
    "per_head(random_eviction())": PerHead(of=RandomEviction()),
    "per_head(per_layer(snapkv(budget='64MiB')))": PerHead(of=PerLayer(of=SnapKV(budget="64MiB"))),
    "per_head(per_head(per_layer()))": PerHead(of=PerHead(of=PerLayer())),
    "per_layer()": PerLayer(),
    "per_layer(beside=snapkv())": PerLayer(beside=SnapKV()),
    "per_layer(random_eviction(seed=1), beside=snapkv(window=8))": PerLayer(
        of=RandomEviction(seed=1), beside=SnapKV(window=8)
    ),
}


@pytest.mark.parametrize("text", RECIPES)
def test_text_and_toml_round_trip(text: str, tmp_path: Path) -> None:
    recipe = Recipe([RECIPES[text], Coarse(bits=3)])
    assert str(recipe) == f"{text} + coarse(bits=3)"
    assert Recipe.parse(str(recipe)) == recipe
    assert hash(Recipe.parse(str(recipe))) == hash(recipe)
    recipe.save(tmp_path / "recipe.toml")
    assert Recipe.load(tmp_path / "recipe.toml") == recipe


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("per_head(of=snapkv(budget=0.25))", "per_head(snapkv(budget=0.25))"),
        ("per_head(random_eviction, floor=0)", "per_head(of=random_eviction(), floor=0)"),
        ("per_head(snapkv)", "per_head"),
        ("per_layer(beside=None)", "per_layer()"),
        ("per_head(\n  per_layer(\n    snapkv))", "per_head(per_layer())"),
    ],
)
def test_one_method_may_be_written_in_many_ways(text: str, same: str) -> None:
    assert Recipe.parse(text) == Recipe.parse(same)


def test_one_token_is_not_everything_in_a_method_either() -> None:
    one, everything = PerHead(of=SnapKV(budget=1)), PerHead(of=SnapKV(budget=1.0))
    assert str(one) != str(everything)
    assert str(Recipe.parse(str(one))) == str(one)


def test_a_method_in_a_method_counts_in_equality() -> None:
    values = {PerHead(), PerHead(of=SnapKV()), PerHead(of=SnapKV(window=8)), PerHead(of=RandomEviction())}
    assert len(values) == 3


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("per_head(snapkw)", UnknownMethodError, "no method is called 'snapkw'; did you mean 'snapkv'"),
        ("per_hea(snapkv)", UnknownMethodError, "no method is called 'per_hea'; did you mean 'per_head'"),
        (
            "per_head(coarse(bits=3))",
            ParameterError,
            r"per_head: of=coarse\(bits=3\) is not allowed; allowed is an eviction or an allocation, such as snapkv",
        ),
        ("per_head(of=0.25)", ParameterError, "per_head: of=0.25 is not allowed; allowed is an eviction or an"),
        ("per_head(of='snapkv')", ParameterError, "of='snapkv' is not allowed"),
        ("per_layer(per_head)", ParameterError, r"of=per_head\(\) is not allowed; allowed is an eviction, such as"),
        ("per_layer(beside=coarse)", ParameterError, r"beside=coarse\(\) is not allowed; allowed is an eviction or no"),
        ("per_head(snapkv(window=0))", ParameterError, "snapkv: window=0 is not allowed"),
        ("per_head(snapkv(windo=8))", ParameterError, "snapkv has no parameter 'windo'; did you mean 'window'"),
        ("per_head(snapkv, off=3)", ParameterError, "per_head has no parameter 'off'; did you mean 'of'"),
    ],
)
def test_a_mistake_is_one_line(text: str, error: type[PithError], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        Recipe.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says", "place"),
    [
        ("per_head(0.25)", "a parameter is given by name", "0.25"),
        ("snapkv(random_eviction)", "a parameter is given by name", "random_eviction"),
        ("per_head(snapkv, random_eviction)", "a parameter is given by name", "random_eviction"),
        ("per_head(snapkv(0.25))", "a parameter is given by name", "0.25"),
        ("per_head(*snapkv)", "a parameter is given by name", "*snapkv"),
        ("per_head(snapkv + coarse)", "a parameter is given by name", "snapkv + coarse"),
        ("per_head(snapkv, of=random_eviction)", "of is given twice", "of=random_eviction"),
        ("per_head(floor=snapkv)", "a number, a text, True, False or None; a call is for of", "snapkv"),
        ("per_head(snapkv(budget=coarse))", "a number, a text, True, False or None", "coarse"),
        ("per_head(pith.snapkv())", "a name is expected", "pith.snapkv()"),
        ("coarse + per_head(of=snapkv(window=x))", "a number, a text", "x))"),
    ],
)
def test_a_syntax_error_points_at_the_place(text: str, says: str, place: str) -> None:
    with pytest.raises(RecipeSyntaxError, match=says) as caught:
        Recipe.parse(text)
    _, line, caret = str(caught.value).splitlines()
    assert line[caret.index("^") :].startswith(place)


def test_a_text_that_is_too_deep_is_refused() -> None:
    with pytest.raises(PithError):
        Recipe.parse("per_head(" * 1000 + ")" * 1000)
    assert len(Recipe.parse("per_head(" * 90 + "snapkv" + ")" * 90)) == 1


@pytest.mark.parametrize(
    "of",
    [
        'of = { name = "snapkv", budget = 0.25 }\nfloor = 0.2',
        'floor = 0.2\n[method.of]\nname = "snapkv"\nbudget = 0.25',
    ],
)
def test_toml_takes_an_inline_table_and_a_table(of: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f'[[method]]\nname = "per_head"\n{of}\n')
    assert Recipe.load(tmp_path / "r.toml") == Recipe.parse("per_head(snapkv(budget=0.25), floor=0.2)")


def test_toml_writes_an_inline_table() -> None:
    assert (
        'of = { name = "random_eviction", budget = 0.25, seed = 0 }'
        in Recipe([PerHead(of=RandomEviction(budget=0.25))]).to_toml()
    )


@pytest.mark.parametrize(
    ("of", "error", "says"),
    [
        ("{ budget = 0.25 }", RecipeSyntaxError, "r.toml': the table 'of' needs a name, such as name = \"snapkv\""),
        ("{ name = 3 }", RecipeSyntaxError, "the table 'of' needs a name"),
        ('{ name = "snapkw" }', UnknownMethodError, "did you mean 'snapkv'"),
        ('{ name = "coarse" }', ParameterError, r"of=coarse\(\) is not allowed"),
        ('"snapkv"', ParameterError, "of='snapkv' is not allowed"),
        ('[{ name = "snapkv" }]', ParameterError, "is not allowed; allowed is an eviction"),
    ],
)
def test_a_damaged_table_is_told_clearly(of: str, error: type[PithError], says: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f'[[method]]\nname = "per_head"\nof = {of}\n')
    with pytest.raises(error, match=says):
        Recipe.load(tmp_path / "r.toml")


def test_a_class_of_several_contracts_is_named_by_them() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Loose(Method):
        size: int = param(4, "a number")
        of: Retention = param(RandomEviction(), "any of them")

    assert Loose.parameters()[1].kind == "eviction or allocation"
    assert Loose.parameters()[1].allowed == "an eviction or an allocation, such as random_eviction"
    assert str(Loose(size=3, of=PerHead())) == "loose(per_head(), size=3)"


def test_a_parameter_says_which_methods_it_takes() -> None:
    of, floor = PerHead.parameters()
    assert (of.kind, of.default) == ("eviction or allocation", SnapKV())
    assert of.allowed == "an eviction or an allocation, such as snapkv"
    assert [one.__name__ for one in of.takes] == ["Eviction", "Allocation"]
    assert floor.takes == ()
    first, beside = PerLayer.parameters()
    assert (first.kind, first.default, first.allowed) == ("eviction", SnapKV(), "an eviction, such as snapkv")
    assert (beside.kind, beside.default, beside.allowed) == ("eviction or none", None, "an eviction or none")
