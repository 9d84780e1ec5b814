"""A comparison whose every measurement is written down; run as a process of its own, to be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pith.core import Recipe
from pith.measure import Measurement
from pith.study import Store, Study, compare
from study.fakes import measurement, question


class Quiet:
    def begins(self, recipe: Recipe) -> None: ...

    def has(self, study: Study, recipe: Recipe, stored: bool) -> None: ...


def main(directory: Path, log: Path, delay: float) -> None:
    def measure(recipe: Recipe) -> Measurement:
        time.sleep(delay)
        with log.open("a") as lines:
            lines.write(f"{recipe}\n")
        return measurement(recipe)

    asked = question("snapkv", "streaming_llm", "random_eviction", budgets=tuple(i / 10 for i in range(1, 10)))
    with Store(directory) as store:
        study = compare(asked, store, measure, Quiet())
    assert list(study.measurements) == [str(recipe) for recipe in asked.recipes]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
