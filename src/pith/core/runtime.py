"""What makes a recipe act on a model.

`core` imports nothing of Pith, so it finds the runtime as it finds methods: by entry point, in the group
`pith.runtime`.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from pith.core.errors import PithError

if TYPE_CHECKING:
    from pith.core.recipe import Recipe

GROUP = "pith.runtime"


class Runtime(Protocol):
    """What makes a recipe act on a loaded Transformers model."""

    def cache(self, model: Any, recipe: Recipe) -> Any:
        """A Transformers cache in which the recipe's attention-time methods act."""

    def applied(self, model: Any, recipe: Recipe) -> AbstractContextManager[Any]:
        """Applies the recipe to the model, and takes everything back on exit."""


@functools.cache
def runtime() -> Runtime:
    """The runtime that is installed.

    Raises:
        PithError: there is none: the package was copied, not installed.
    """
    for point in entry_points(group=GROUP):
        found: Runtime = point.load()()
        return found
    raise PithError(
        "no entry point of the group pith.runtime is installed; install Pith with pip, also from a checkout"
    )
