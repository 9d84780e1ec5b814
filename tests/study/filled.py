"""A store with one row."""

from __future__ import annotations

from pathlib import Path

from pith.core import Recipe
from pith.study import Store
from study.fakes import TASKS, measurement

DENSE = measurement(Recipe()).costs
NEEDLE, PERPLEXITY = TASKS
ANSWER = measurement(Recipe()).answers[str(PERPLEXITY)]


def filled(directory: Path) -> Path:
    with Store(directory) as store:
        store.put("key", DENSE, {"recipe": "dense"})
    return directory / "study.sqlite"
