"""Pith: the research on making language models cheaper and better, side by side.

Every published method is one short file; methods combine into recipes; `pith compare` measures what they really do.

Example:
    >>> import pith
    >>> recipe = pith.Recipe.parse("snapkv(budget=0.25)")
    >>> model, tokenizer = pith.models.builtin()
    >>> with pith.applied(model, recipe):
    ...     tokens = model.generate(**tokenizer("import os", return_tensors="pt"), max_new_tokens=2)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pith import attention, models, weights
    from pith.core import Method, Paper, PithError, PithWarning, Recipe, applied, methods
    from pith.models import load
    from pith.weights import calibration, compress

__version__ = "0.1.0"
__all__ = [
    "Method", "Paper", "PithError", "PithWarning", "Recipe", "applied", "attention", "calibration", "compress", "load",
    "methods", "models", "weights",
]  # fmt: skip
_ROOMS = ("attention", "models", "weights")
_HOMES = {"load": "models", "calibration": "weights", "compress": "weights"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for, so that `pith --help` need not wait for PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module 'pith' has no attribute {name!r}")
    if name in _ROOMS:
        return importlib.import_module(f"pith.{name}")
    return getattr(importlib.import_module(f"pith.{_HOMES.get(name, 'core')}"), name)
