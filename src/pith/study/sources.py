"""What code a piece of a measurement comes out of, as a short hash."""

from __future__ import annotations

from pith.core import Recipe
from pith.core.sources import code_of
from pith.tasks import Task

_ALWAYS = ("pith.attention", "pith.models.subject")
"""What every result comes out of, beside its recipe and its task: the runtime, which is found by its entry point."""

_COSTS = ("pith.measure.cost",)
"""What bytes and seconds come out of."""

_SMALLER = ("pith.models.smaller",)
"""What a model comes out of whose weights a recipe changes."""


def code_hash(recipe: Recipe, task: Task | None = None) -> str:
    """16 hexadecimal digits that differ where the code differs which a piece of a measurement comes out of.

    It is the text of the modules that define the recipe's methods and the task (without a task, the timing), and of
    every module that these import, and so on (see `code_of`). So an edit of a method asks again what it answered, an
    edit of the attention runtime asks everything again, and a commit that touches pages, commands or another method
    leaves stored results as they are.
    """
    made = _SMALLER if len(recipe.weights) else ()
    return code_of([*recipe, *([task] if task else [])], (*_ALWAYS, *made, *(() if task else _COSTS)))
