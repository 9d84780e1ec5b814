"""A comparison whose every measurement is written down; run as a process of its own, to be killed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pith.core import Recipe
from pith.measure import Answer, Costs
from pith.study import Question, Store, Study, compare
from pith.tasks import Task
from study.fakes import Fake, question

BUDGETS = tuple(i / 10 for i in range(1, 10))


class Quiet:
    def expects(self, question: Question, left: object) -> None: ...

    def prepares(self, task: Task, done: int, total: int) -> None: ...

    def begins(self, recipe: Recipe) -> None: ...

    def begins_together(self, recipes: Sequence[Recipe]) -> None: ...

    def has(self, study: Study, recipe: Recipe, stored: bool) -> None: ...


@dataclass(frozen=True)
class Noted(Fake):
    """Takes its time, and writes down what it takes."""

    log: Path
    delay: float

    def _note(self, *what: object) -> None:
        with self.log.open("a") as lines:
            lines.write(" | ".join(map(str, what)) + "\n")
        time.sleep(self.delay)

    def costs(self, recipe: Recipe) -> Costs:
        self._note(recipe, "costs")
        return super().costs(recipe)

    def answer(self, recipe: Recipe, task: Task) -> Answer:
        self._note(recipe, task)
        return super().answer(recipe, task)


@dataclass(frozen=True)
class MakeNoted:
    """What makes a worker measure so."""

    log: Path
    delay: float

    def __call__(self) -> Noted:
        return Noted(self.log, self.delay)


def many() -> Question:
    return question("snapkv", "streaming_llm", "random_eviction", budgets=BUDGETS)


def path() -> str:
    """The PYTHONPATH with which another process finds the tests too."""
    return os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])


def main(directory: Path, log: Path, delay: float) -> None:
    asked = many()
    with Store(directory) as store:
        study = compare(asked, store, Noted(log, delay), Quiet())
    assert list(study.measurements) == [str(recipe) for recipe in asked.recipes]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
