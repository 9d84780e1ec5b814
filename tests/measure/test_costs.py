"""Recipes that are timed together cost what each costs alone."""

from __future__ import annotations

import warnings
from functools import cache

import pytest

from pith.core import ModelError, PithWarning, Recipe
from pith.measure import Costs, costs, costs_together, seconds
from pith.models import Subject, load

builtin = cache(lambda: load("builtin", "float32"))
RECIPES = [Recipe(), *map(Recipe.parse, ("snapkv(budget=0.25)", "kivi(bits=4)"))]


def test_bytes_are_those_of_each_alone_and_times_are_of_the_same_rounds() -> None:
    told: list[tuple[str, int, int]] = []
    found = costs_together(builtin(), RECIPES, length=96, runs=2, progress=lambda *done: told.append(done))
    assert list(found) == [str(recipe) for recipe in RECIPES]
    assert {what for what, _, _ in told} == {"speed"}
    assert told[-1][1] == told[-1][2] >= 2 * 4
    for recipe in RECIPES:
        together, alone = found[str(recipe)], costs(builtin(), recipe, length=96, runs=1)
        assert isinstance(together, Costs)
        assert together.bytes == alone.bytes
        assert together.memory == alone.memory
        assert together.speed is not None
        assert together.speed.runs >= 2


def test_without_runs_each_is_read_once_and_the_dense_model_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = seconds.run_once

    def counted(who: Subject, *args: object) -> seconds.Run:
        read.append(str(who.recipe))
        return real(who, *args)  # type: ignore[arg-type]

    monkeypatch.setattr("pith.measure.cost.run_once", counted)
    monkeypatch.setattr("pith.measure.seconds.run_once", counted)
    found = costs_together(builtin(), RECIPES, length=101, runs=0)
    assert read == ["None", *map(str, RECIPES[1:])]
    assert all(isinstance(one, Costs) and one.speed is None for one in found.values())


def test_an_error_and_a_warning_of_one_recipe_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    real = seconds.run_once

    def told(who: Subject, *args: object) -> seconds.Run:
        if "snapkv" in str(who.recipe):
            raise ModelError("it has no rotary positions")
        if "kivi" in str(who.recipe):
            warnings.warn("groups are left over", PithWarning, stacklevel=2)
        return real(who, *args)  # type: ignore[arg-type]

    monkeypatch.setattr("pith.measure.seconds.run_once", told)
    dense, snapkv, kivi = costs_together(builtin(), RECIPES, length=96, runs=1).values()
    assert isinstance(snapkv, ModelError)
    assert isinstance(dense, Costs)
    assert isinstance(kivi, Costs)
    assert (dense.notes, kivi.notes) == ((), ("groups are left over",))
    with pytest.raises(ModelError, match="rotary"):
        costs(builtin(), RECIPES[1], length=96, runs=1)
