"""Pith's warnings as texts that stand beside a result."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pith.core.errors import PithWarning


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
