"""The slot in which the rooms above put what makes a recipe act on a model.

`core` imports nothing of Pith, so a recipe cannot know the attention runtime; the runtime registers itself here.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pith.core.recipe import Recipe


class Runtime(Protocol):
    """What makes a recipe act on a loaded Transformers model."""

    def cache(self, model: Any, recipe: Recipe) -> Any:
        """A Transformers cache in which the recipe's attention-time methods act."""

    def applied(self, model: Any, recipe: Recipe) -> AbstractContextManager[Any]:
        """Applies the recipe to the model, and takes everything back on exit."""


_slot: list[Runtime] = []


def set_runtime(runtime: Runtime) -> None:
    """Puts the runtime into the slot."""
    _slot[:] = [runtime]


def runtime() -> Runtime:
    """The registered runtime; importing `pith` registers one."""
    return _slot[0]
