"""Searches in which nothing is measured; run as a process of its own, to be killed."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from pith.core import Recipe, methods
from pith.measure import Answer, CacheBytes, Costs, Memory, Speed, weight_bytes
from pith.measure.seconds import Run
from pith.models import Loaded, Subject, load
from pith.search import at, fit, loop, space
from pith.search.aim import Aim
from pith.search.sought import Sought, Tried
from pith.search.space import knob
from pith.study import Store, Study, tasks_with
from pith.tasks import Calibration, Quality, Task

TASKS = tasks_with("needle(length=96, keys=2, count=40),perplexity(length=96, scored=8, count=16)", {})
LENGTH = 128
CACHE = 1 << 20
"""What the dense cache takes in these searches."""

NAMES = ("kivi", "deco_quant", "kvzip", "snapkv", "ada_kv", "quest")
"""The methods that there are in these searches."""

GOOD = ("kivi", "deco_quant", "kvzip")
"""Methods that keep the quality; all others lose the share that they do not hold."""


def share(recipe: Recipe | None) -> float:
    """What a recipe holds: where its methods' knobs stand along their sweeps; readings hold everything."""
    held = 1.0
    for method in recipe or ():
        place = knob(method)
        if method.contract == "reading":
            continue
        if place is None:
            held *= 0.3
        elif place.parameter.is_range:
            most, least = place.parameter.sweep
            held *= max((place.value(method) - most) / (least - most), 0.01)
        else:
            held *= (1 + place.parameter.sweep.index(place.value(method))) / len(place.parameter.sweep)
    return held


def weighed(subject: Subject, prompt: Any, tokens: int = 32) -> Run:
    held = int(CACHE * share(subject.recipe))
    return Run(1.0, 0.5 + share(subject.recipe) / 2, held, held + 1000)


def timed(subject: Subject, dense: Subject, prompt: Any, runs: int, *_: Any) -> tuple[list[Run], list[Run]]:
    return [weighed(subject, prompt)] * runs, [weighed(Subject(None, None), prompt)] * runs


def answered(loaded: Loaded | None, recipe: Recipe, task: Task, **_: Any) -> Answer:
    kept = 1.0 if all(method.name in GOOD for method in recipe) else share(recipe)
    if task.logarithmic:
        losses = tuple(2.0 + 0.01 * i - math.log(max(kept, 0.01)) for i in range(task.count))  # type: ignore[attr-defined]
        return Answer(Quality(math.exp(sum(losses) / len(losses)), 0.0, 99.0, len(losses), losses), (), {})
    scores = tuple(float(i % 10 < 10 * kept) for i in range(task.count))  # type: ignore[attr-defined]
    return Answer(Quality(sum(scores) / len(scores), 0.0, 1.0, len(scores), scores), (), {})


@dataclass(frozen=True)
class NotHere:
    """Takes the pieces of measurements without measuring."""

    loaded: Loaded
    length: int
    batch_size: int
    seed: int
    progress: Any = None
    runs: int = 5

    def costs(self, recipe: Recipe) -> Costs:
        run, dense = (weighed(Subject(None, None, r), None) for r in (recipe, None))
        held = CacheBytes(run.prefill_bytes, dense.prefill_bytes, run.decoded_bytes, dense.decoded_bytes, LENGTH, 1.0)
        speed = Speed(1.0, 1.0, 1.0, run.decode, 1.0, run.decode, 0.01, 5)
        return Costs(held, speed, Memory(weight_bytes(self.loaded.model)), None, (), {})

    def costs_together(self, recipes: Sequence[Recipe]) -> dict[str, Costs]:
        return {str(recipe): self.costs(recipe) for recipe in recipes}

    def answer(self, recipe: Recipe, task: Task) -> Answer:
        return answered(self.loaded, recipe, task)

    def answer_together(self, recipes: Sequence[Recipe], task: Task) -> dict[str, Answer]:
        return {str(recipe): self.answer(recipe, task) for recipe in recipes}

    def calibrate(self, task: Task) -> Calibration:
        return Calibration(1.0, 0.5 if task.higher_is_better else 500.0)


class Noted:
    """Watches, and writes down which recipes were tried."""

    def __init__(self, log: Path | None = None) -> None:
        self.log = log
        self.trying: list[str] = []
        self.fresh: list[str] = []

    def progress(self, what: str, done: int, total: int) -> None: ...

    def tries(self, recipe: Recipe) -> None:
        self.trying.append(str(recipe))

    def has_tried(self, tried: Sequence[Tried], wanted: int) -> None:
        if self.log:
            with self.log.open("a") as lines:
                lines.write(f"{tried[-1].recipe}\n")
            time.sleep(0.05)

    def measures(self, recipes: int) -> None: ...

    def expects(self, question: object, left: object) -> None: ...

    def prepares(self, task: object, done: int, total: int) -> None: ...

    def begins(self, recipe: Recipe) -> None:
        self.fresh.append(str(recipe))

    def begins_together(self, recipes: Sequence[Recipe]) -> None: ...

    def has(self, study: Study, recipe: Recipe, stored: bool) -> None: ...


@contextmanager
def unmeasured(weigh: Callable[..., Run] = weighed) -> Iterator[None]:
    """Nothing is measured inside."""
    few = {name: method for name, method in methods().items() if name in NAMES}
    with ExitStack() as stack:
        for room in (loop, space):
            stack.enter_context(mock.patch.object(room, "methods", return_value=few))
        for where, name, instead in (
            (loop, "run_once", weigh),
            (loop, "run_pairs", timed),
            (loop, "answer", answered),
            (at, "run_once", weighed),
            (fit, "Here", NotHere),
        ):
            stack.enter_context(mock.patch.object(where, name, instead))
        stack.enter_context(mock.patch.object(type(TASKS[0]), "calibrate", return_value=Calibration(1.0, 0.5)))
        yield


def fitted(folder: Path, watch: Noted, memory: int, trials: int, loaded: Loaded | None = None) -> tuple[Study, Sought]:
    """A search with a limit of the bytes that weights and cache take."""
    aim = Aim(memory=memory, tasks=TASKS, length=LENGTH)
    with Store(folder) as store:
        return fit.fit(loaded or load("builtin"), aim, store, watch, trials=trials)


if __name__ == "__main__":
    with unmeasured():
        fitted(Path(sys.argv[1]), Noted(Path(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4]))
