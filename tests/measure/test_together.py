"""Recipes that take turns in a task find what each finds alone."""

from __future__ import annotations

import warnings

import pytest

from pith.attention import shared_prompt
from pith.core import InputError, ModelError, PithWarning, Recipe
from pith.measure import answer, answer_together, together
from pith.models import Loaded, Subject, load
from pith.models.smaller import subject
from pith.tasks import parse_tasks

RECIPES = [Recipe.parse(text) for text in ("snapkv(budget=0.3)", "streaming_llm(budget=0.3)", "kivi(bits=2)")]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load("builtin", "float32")


@pytest.mark.parametrize(
    "text",
    [
        "needle(length=96, count=5)",
        "needle(length=96, count=5, query='agnostic')",
        "perplexity(length=64, scored=8, count=4)",
        "bits_per_byte(length=64, scored=8, count=4, chunk=3)",
    ],
)
def test_it_is_what_each_finds_alone(loaded: Loaded, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [task] = parse_tasks(text)
    blocks: list[shared_prompt.SharedPrompt] = []
    made = shared_prompt.SharedPrompt
    monkeypatch.setattr(shared_prompt, "SharedPrompt", lambda: blocks.append(made()) or blocks[-1])
    told: list[tuple[int, int]] = []
    found = answer_together(
        loaded, RECIPES, task, batch_size=3, progress=lambda done, total: told.append((done, total))
    )
    for recipe in RECIPES:
        alone = answer(loaded, recipe, task, batch_size=3)
        assert found[str(recipe)] == alone
    [block] = blocks
    assert block.forwards == block.taken_over == 2, "two batches, which two of the recipes share"
    assert told == sorted(told)
    assert told[-1][1] == 3 * task.count


def test_what_a_recipe_warns_of_is_noted_with_it_alone(loaded: Loaded) -> None:
    [task] = parse_tasks("needle(length=96, count=4)")
    recipes = [Recipe.parse("snapkv(budget=0.3)"), Recipe.parse("kvzip(budget=0.3)")]

    class Noisy(type(task)):
        def batches(self, subject, batch_size=8, progress=None):
            for _ in range(2):
                warnings.warn(f"of {subject.recipe}", PithWarning, stacklevel=1)
                yield
            return (yield from super().batches(subject, batch_size, progress))

    found = answer_together(loaded, recipes, Noisy(length=96, count=4))
    assert [found[str(recipe)].notes for recipe in recipes] == [(f"of {recipe}",) for recipe in recipes]


def test_an_error_of_one_recipe_is_its_own(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    [task] = parse_tasks("needle(length=96, count=4)")
    wrong, right = RECIPES[1], RECIPES[0]

    def refuse(loaded: Loaded, recipe: Recipe) -> Subject:
        if recipe == wrong:
            raise ModelError("it has no rotary positions")
        return subject(loaded, recipe)

    monkeypatch.setattr(together, "subject", refuse)
    found = answer_together(loaded, [wrong, right], task)
    assert str(found[str(wrong)]) == "it has no rotary positions"
    assert found[str(right)] == answer(loaded, right, task)


def test_a_batch_has_a_size(loaded: Loaded) -> None:
    [task] = parse_tasks("needle(length=96, count=4)")
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        answer_together(loaded, RECIPES, task, batch_size=0)
