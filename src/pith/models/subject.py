"""What is examined: a model with a recipe applied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pith.core import Recipe, runtime


@dataclass(frozen=True)
class Subject:
    """A model, its tokenizer and the recipe under which it is examined.

    Attributes:
        model: a loaded Transformers causal language model, in evaluation mode.
        tokenizer: its tokenizer.
        recipe: the recipe; None is the model in plain Transformers, without Pith's runtime.
    """

    model: Any
    tokenizer: Any
    recipe: Recipe | None = field(default=None)

    @contextmanager
    def applied(self) -> Iterator[Any]:
        """The model with the recipe applied, taken back on exit."""
        if self.recipe is None:
            yield self.model
            return
        with runtime().applied(self.model, self.recipe):
            yield self.model
