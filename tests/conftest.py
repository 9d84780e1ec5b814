"""Before anything of Pith is imported: shapes in annotations are checked at run time."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import shapes

SHAPED = ["attention", "weights", "cache", "quantization", "pruning", "models", "tasks", "measure"]
"""The rooms whose annotations say shapes."""

shapes.install([f"pith.{room}" for room in SHAPED])

import pytest  # noqa: E402
import torch  # noqa: E402  (after the hook, as everything that may import Pith)

torch.set_num_threads(1)  # the suite runs in several processes


@pytest.fixture(autouse=True)
def _count_calls_anew() -> None:
    shapes.begin_test()


@pytest.fixture(autouse=True, scope="session")
def quiet_machine() -> Iterator[None]:
    """A machine on which nothing else runs: no test's notes depend on what is at work beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pith.measure.crowding.runnable", lambda: 0)
        yield


@pytest.fixture(autouse=True, scope="session")
def _checks_are_nobodys_line() -> Iterator[None]:
    """Warnings name the user's line, not the suite's check of shapes in between."""
    from pith.core import notes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notes, "_INSIDE", (*notes._INSIDE, shapes.__name__))
        yield
