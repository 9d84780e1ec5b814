"""Measurements that nothing had to be measured for."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TypeVar

from pith.core import ModelError, Recipe
from pith.measure import Answer, Bandwidth, CacheBytes, Costs, Measurement, Memory, Speed
from pith.search.sought import Sought, Tried
from pith.study import Question, Study, grid, tasks_with
from pith.tasks import Calibration, Quality, Task
from pith.tasks.interval import t_interval, wilson_interval

P = TypeVar("P", Costs, Answer)

DENSE_BYTES = 1 << 20
WEIGHTS = 3 << 20
TASKS = tasks_with("needle,perplexity", {"length": 2048})
RIGHT = {"dense": 0.96, "snapkv": 0.94, "rtn": 0.94, "streaming_llm": 0.3, "random_eviction": 0.3}
"""How many needles each finds; any other method finds a share of its own."""


def question(*recipes: str, budgets: tuple[float, ...] = (0.5, 0.25), tasks: tuple[Task, ...] = TASKS) -> Question:
    return Question("fake", grid(recipes, budgets), tasks, {"model": "fake"}, {"length": 2048, "seed": 0})


def measurement(
    recipe: Recipe, claimed: float | None = None, notes: tuple[str, ...] = (), tasks: tuple[Task, ...] = TASKS
) -> Measurement:
    """What a fake model did: quality by the method's name, bytes and time by its budget, weights by their bits."""
    name = recipe.methods[0].name if len(recipe) else "dense"
    share = next((getattr(method, "budget", 1.0) for method in recipe.rest), 1.0)
    right = RIGHT.get(name, 0.2 + 0.7 * random.Random(name).random())
    speed = Speed(0.8, 0.8, 1.0, 0.004 * share, 0.004, share, 0.02, 5)
    held = CacheBytes(int(DENSE_BYTES * share), DENSE_BYTES, DENSE_BYTES, DENSE_BYTES, 2048, claimed or share)
    where = {"torch": "2.13.0", "threads": 2}
    memory, read = Memory(WEIGHTS), WEIGHTS + held.decoded
    if len(recipe.weights):
        memory = Memory(WEIGHTS * next(getattr(m, "bits", 32) for m in recipe.weights) // 32, dense_weights=WEIGHTS)
    costs = Costs(held, speed, memory, Bandwidth(read, read / speed.decode, 8e9), notes, where)
    qualities = {str(task): losses(recipe, right) if task.logarithmic else hits(right) for task in tasks}
    return Measurement(
        "fake", str(recipe), costs, {task: Answer(found, (), where) for task, found in qualities.items()}
    )


def hits(right: float) -> Quality:
    """So many right answers of a hundred, the nearer the end the more."""
    scores = tuple(float(i < 100 * right) for i in range(100))
    depths = tuple(1 - (i + (i * 37) % 30) / 130 for i in range(100))
    return Quality(fmean(scores), *wilson_interval(int(sum(scores)), 100), 100, scores, depths)


def losses(recipe: Recipe, right: float) -> Quality:
    """Losses that grow with what is not found, and fall along the text."""
    noise = random.Random(str(recipe))
    scores = tuple(2.0 + 0.01 * i + (0.96 - right) + noise.gauss(0, 0.05) for i in range(16))
    low, high = map(math.exp, t_interval(scores))
    curve = tuple((2048 + 16 * i, fmean(scores) + 0.2 / (i + 1)) for i in range(8))
    return Quality(math.exp(fmean(scores)), low, high, 16, scores, (), curve)


def study(
    *recipes: str, budgets: tuple[float, ...] = (0.5, 0.25), tasks: tuple[Task, ...] = TASKS, chance: float = 0.25
) -> Study:
    asked = question(*recipes, budgets=budgets, tasks=tasks)
    known = {str(t): Calibration(1.0, 1024.0) if t.logarithmic else Calibration(1.0, chance) for t in tasks}
    return Study(asked, {str(recipe): measurement(recipe, tasks=tasks) for recipe in asked.recipes}, {}, known)


def sought(found: bool = True) -> Sought:
    """A search over budgets of one method."""
    tried = [
        Tried(f"snapkv(budget={b})", WEIGHTS + int(DENSE_BYTES * b), 0.7 + 0.28 * b, b, 20, None, True)
        for b in (0.2, 0.4, 0.6)
    ]
    tried += [
        Tried("streaming_llm(budget=0.6)", WEIGHTS + int(DENSE_BYTES * 0.6), 0.4, 0.6, 8, "far below on 8 examples"),
        Tried("kivi", WEIGHTS + DENSE_BYTES, None, None, 0, "holds more than the limit"),
    ]
    best = tried[1].recipe
    limit = WEIGHTS + DENSE_BYTES // 2
    misses = "" if found else "quality 81.2%, asked for 98.0%"
    command = f'pith generate fake "..." --recipe "{best}"'
    return Sought(limit, 0.8 if found else 0.98, None, WEIGHTS + DENSE_BYTES, tuple(tried), best if found else None,
                  best, misses, command)  # fmt: skip


class Fake:
    """Takes the pieces of those measurements."""

    def prepare(self, recipe: Recipe) -> None: ...

    def costs(self, recipe: Recipe) -> Costs:
        return measurement(recipe).costs

    def answer(self, recipe: Recipe, task: Task) -> Answer:
        return measurement(recipe).answers[str(task)]

    def costs_together(self, recipes: Sequence[Recipe]) -> dict[str, Costs | ModelError]:
        return {str(recipe): _tried(self.costs, recipe) for recipe in recipes}

    def answer_together(self, recipes: Sequence[Recipe], task: Task) -> dict[str, Answer | ModelError]:
        return {str(recipe): _tried(self.answer, recipe, task) for recipe in recipes}

    def calibrate(self, task: Task) -> Calibration:
        return Calibration(1.0, 0.01 if task.higher_is_better else 5000.0)


def _tried(take: Callable[..., P], *args: object) -> P | ModelError:
    try:
        return take(*args)
    except ModelError as error:
        return error
