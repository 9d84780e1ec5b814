"""Recipes as Python, text and TOML; every mistake is one clear line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from pith.cache.random_eviction import RandomEviction
from pith.cache.snapkv import SnapKV
from pith.cache.streaming_llm import StreamingLLM
from pith.core import (
    Method,
    Paper,
    ParameterError,
    PithError,
    Recipe,
    RecipeError,
    RecipeSyntaxError,
    UnknownMethodError,
    param,
)


@dataclass(frozen=True, kw_only=True)
class Weights(Method):
    """A stand-in of another family, which acts before attention."""

    paper: ClassVar[Paper] = Paper("", "A stand-in", "The Pith authors", 2026)
    question: ClassVar[str] = "how are weights stored?"
    order: ClassVar[int] = 0
    bits: int = param(4, "bits", ge=2, le=8)
    rounding: Literal["nearest", "up"] = param("nearest", "how a value is rounded")


RECIPES = [
    Recipe(),
    Recipe([SnapKV(budget=0.25)]),
    Recipe([SnapKV(budget="64MiB", window=8, kernel=7, pooling="mean")]),
    Recipe([StreamingLLM(budget=1024, start_size=0)]),
    Recipe([RandomEviction(seed=3)]),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_text_and_toml_round_trip(recipe: Recipe, tmp_path: Path) -> None:
    assert Recipe.parse(str(recipe)) == recipe
    recipe.save(tmp_path / "recipe.toml")
    assert Recipe.load(tmp_path / "recipe.toml") == recipe
    assert eval(repr(recipe)) == recipe


def test_the_text_shows_what_differs_from_the_defaults() -> None:
    assert str(Recipe([SnapKV(budget=0.25)])) == "snapkv(budget=0.25)"
    assert str(Recipe([SnapKV()])) == "snapkv()"
    assert str(Recipe()) == "dense"


def test_weights_come_first_whatever_the_order_written() -> None:
    assert [m.name for m in Recipe([SnapKV(), Weights()])] == ["weights", "snapkv"]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("snapkw(budget=0.25)", UnknownMethodError, "did you mean 'snapkv'"),
        ("snapkv(budgett=0.25)", ParameterError, "did you mean 'budget'.*it has: budget, window, kernel"),
        ("snapkv(window=0)", ParameterError, r"window=0 is not allowed; allowed is int, 1 or more"),
        ("snapkv(kernel=4)", ParameterError, r"kernel=4 is not allowed; allowed is an odd int, 1 or more"),
        ("snapkv(budget=1.5)", ParameterError, r"budget=1.5 makes no sense; allowed is a share of the prompt"),
        ("snapkv(budget=0)", ParameterError, "budget=0 makes no sense"),
        ("snapkv(budget='64 cats')", ParameterError, "budget='64 cats' makes no sense"),
        ("snapkv(budget=True)", ParameterError, "budget=True makes no sense"),
        ("snapkv + streaming_llm", RecipeError, "snapkv and streaming_llm both answer"),
        ("snapkv + snapkv", RecipeError, "snapkv and snapkv both answer"),
        ("snapkv(budget=", RecipeSyntaxError, "\\^"),
        ("snapkv * 2", RecipeSyntaxError, "joined by \\+"),
        ("snapkv(0.25)", RecipeSyntaxError, "by name"),
        ("snapkv(budget=open('x'))", RecipeSyntaxError, "a number, a text"),
        ("'snapkv'", RecipeSyntaxError, "a name is expected"),
        ("", RecipeSyntaxError, "empty"),
    ],
)
def test_a_mistake_is_told_clearly(text: str, error: type[PithError], says: str) -> None:
    with pytest.raises(error, match=says):
        Recipe.parse(text)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"bits": "8"}, "bits='8' is not allowed; allowed is int, 2 or more, at most 8"),
        ({"bits": True}, "bits=True is not allowed"),
        ({"bits": 9}, "bits=9 is not allowed"),
        ({"rounding": "down"}, "rounding='down' is not allowed; allowed is one of 'nearest', 'up'"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(values: dict[str, object], says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        Weights.build(**values)


def test_a_syntax_error_points_at_the_place() -> None:
    with pytest.raises(RecipeSyntaxError) as caught:
        Recipe.parse("snapkv(budget=0.25) - random_eviction")
    _, line, caret = str(caught.value).splitlines()
    assert line[caret.index("^") :].startswith("random_eviction")


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[[method]]\nbudget = 0.5\n", "needs a name"),
        ("method = [", "is not TOML"),
        ('method = "snapkv"', "needs a name"),
        ("[[method]]\nname = 3\n", r"each \[\[method\]\] table needs a name"),
    ],
)
def test_a_damaged_file_is_told_clearly(toml: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(toml)
    with pytest.raises(RecipeSyntaxError, match=says):
        Recipe.load(tmp_path / "r.toml")


def test_a_missing_file_is_told_clearly(tmp_path: Path) -> None:
    with pytest.raises(RecipeSyntaxError, match="there is no such file"):
        Recipe.load(tmp_path / "none.toml")


def test_methods_are_values() -> None:
    assert SnapKV(budget=0.25) == SnapKV(budget=0.25)
    assert SnapKV(budget=0.25) != SnapKV(budget=0.5)
    assert len({SnapKV(), SnapKV(), SnapKV(window=8)}) == 2
