"""Pith: the research on making language models cheaper and better, side by side.

Every published method is one short file; methods combine into recipes; `pith compare` measures what they really do.

Example:
    >>> import pith
    >>> recipe = pith.Recipe.parse("snapkv(budget=0.25)")
    >>> model, tokenizer = pith.models.builtin()
    >>> with pith.applied(model, recipe):
    ...     tokens = model.generate(**tokenizer("import os", return_tensors="pt"), max_new_tokens=2)
"""

from pith import attention, models
from pith.core import Method, Paper, PithError, PithWarning, Recipe, methods
from pith.core.applied import applied

__version__ = "0.1.0"
__all__ = ["Method", "Paper", "PithError", "PithWarning", "Recipe", "applied", "attention", "methods", "models"]
