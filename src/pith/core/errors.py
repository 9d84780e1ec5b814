"""The one family of exceptions that Pith raises for a user's mistake, and the one warning."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LONGEST = 299
"""Characters of an error message, at most; a longer one is shortened in its middle."""


class PithError(Exception):
    """A mistake that one line explains: what was given, and what is allowed.

    The command line prints that line and exits with code 2; it never shows a traceback for it. Line breaks and control
    characters in the message are written as escapes, and a message of 300 characters or more is shortened.

    Args:
        message: the line.
        place: further lines that point at a place in a text, such as a caret below it; they begin with a line break.
    """

    def __init__(self, message: object = "", place: str = "") -> None:
        line = shorten(_escaped(str(message)), LONGEST - len(place))
        super().__init__(line, *([place] if place else []))

    def __str__(self) -> str:
        return "".join(map(str, self.args))


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
    match = difflib.get_close_matches(word[:100], list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def shown(value: Any, most: int = 80) -> str:
    """Return a given value as an error message writes it: its `repr`, shortened in its middle to `most` characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python writes no integer of more than 4300 digits, nor a very deep value
        size = f" of {value.bit_length()} bits" if isinstance(value, int) else " that cannot be written"
        text = f"<{type(value).__name__}{size}>"
    return shorten(text, most)


def shorten(text: str, most: int = 80) -> str:
    """Return a text of at most `most` characters: a longer one without its middle."""
    if len(text) <= most:
        return text
    end = max(most - 5, 0) // 3
    return f"{text[: max(most - 5, 0) - end]} ... {text[len(text) - end :]}"


def error_line(error: BaseException, last: bool = False, most: int = 200) -> str:
    """Return one line of an exception's message, of at most `most` characters; its class where it has no message.

    Args:
        error: the exception.
        last: whether the last line is returned instead of the first.
        most: characters of the line, at most.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if last else 0].strip()[:most]


def _escaped(text: str) -> str:
    """Return a text in one line, with every character that no terminal prints as its escape."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text.strip())
