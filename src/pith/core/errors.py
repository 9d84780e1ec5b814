"""The one family of exceptions that Pith raises for a user's mistake, and the one warning."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PithError(Exception):
    """A mistake that one line explains: what was given, and what is allowed.

    The command line prints that line and exits with code 2; it never shows a traceback for it.
    """


class UnknownMethodError(PithError):
    """A recipe names a method that nothing registered."""


class ParameterError(PithError):
    """A method got a parameter that it does not have, or a value of a wrong type or range."""


class RecipeError(PithError):
    """A recipe cannot be: two methods answer one question, or a method's need is not met."""


class RecipeSyntaxError(RecipeError):
    """A text or a file is no recipe; the message points at the place."""


class ModelError(PithError):
    """A model cannot be loaded, or a method cannot take it; the message says why."""


class InputError(PithError):
    """A command or a task got an input that makes no sense (a length, a path, a prompt)."""


class StoreError(PithError):
    """A study's stored results cannot be read or written."""


class PithWarning(UserWarning):
    """Something that works, but less than the user may expect, such as a layer that is left alone."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`'; did you mean 'x'?'` for the nearest known word, and an empty string where none is near."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""
