"""Applying a recipe to a model for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pith.core.recipe import Recipe
from pith.core.runtime import runtime


@contextmanager
def applied(model: Any, recipe: Recipe | str) -> Iterator[Any]:
    """Applies a recipe to a loaded Transformers causal language model, and takes everything back on exit.

    Inside, `model.generate(...)` and `model(...)` begin Pith's cache wherever they would begin one of their own.

    Args:
        model: the model; it is changed for the time of the `with` block only.
        recipe: a recipe or its text.

    Raises:
        ModelError: a method cannot take the model; the message says why.
        RecipeError: a method changes weights; `pith.compress` makes a new model with those.

    Example:
        with pith.applied(model, "snapkv(budget=0.25)"):
            model.generate(**inputs)
    """
    recipe = Recipe.parse(recipe) if isinstance(recipe, str) else recipe
    with runtime().applied(model, recipe.without_weights()):
        yield model
