"""Pith's warnings: issuing one at the user's line, and collecting them as texts that stand beside a result."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pith.core.errors import PithWarning

_INSIDE = ("pith", "contextlib", "jaxtyping", "beartype")
"""Packages whose frames lie between the user's line and a warning."""


def warn(text: str) -> None:
    """Issue a `PithWarning` that names the nearest line outside of Pith as its place."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", ""), frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, PithWarning, stacklevel=level)


def _is_inside(module: str, file: str) -> bool:
    return module.partition(".")[0] in _INSIDE or file.startswith("<@")


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collects the texts of Pith's warnings, each once; all other warnings go on as ever when it is over."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PithWarning)
        yield notes
    for warning in caught:
        if not issubclass(warning.category, PithWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        elif str(warning.message) not in notes:
            notes.append(str(warning.message))
