"""Keeping other libraries' reports and bars out of what a person reads."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from transformers.utils import logging


@contextmanager
def quiet(downloads: bool = False) -> Iterator[None]:
    """Keeps Transformers' reports out, whose news are raised as errors, and its bars where nothing is downloaded."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not downloads:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def silent() -> Iterator[None]:
    """As `quiet`, for libraries that draw bars which nobody can turn off."""
    with quiet(), redirect_stderr(io.StringIO()):
        yield
