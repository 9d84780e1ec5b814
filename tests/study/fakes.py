"""Measurements that nothing had to be measured for."""

from __future__ import annotations

import math
import random
from statistics import fmean

from pith.core import Recipe
from pith.measure import Answer, Bandwidth, CacheBytes, Costs, Measurement, Memory, Speed
from pith.study import Question, Study, grid, tasks_with
from pith.tasks import Quality, Task
from pith.tasks.interval import t_interval, wilson_interval

DENSE_BYTES = 1 << 20
WEIGHTS = 3 << 20
TASKS = tasks_with("needle,perplexity", {"length": 2048})
RIGHT = {"dense": 0.96, "snapkv": 0.94, "streaming_llm": 0.3, "random_eviction": 0.3}
"""How many needles each finds."""


def question(*recipes: str, budgets: tuple[float, ...] = (0.5, 0.25)) -> Question:
    return Question("fake", grid(recipes, budgets), TASKS, {"model": "fake"}, {"length": 2048, "seed": 0})


def measurement(recipe: Recipe, claimed: float | None = None, notes: tuple[str, ...] = ()) -> Measurement:
    """What a fake model did: quality by the method's name, bytes and time by its budget."""
    share = getattr(recipe.methods[0], "budget", 1.0) if len(recipe) else 1.0
    right = RIGHT[recipe.methods[0].name if len(recipe) else "dense"]
    speed = Speed(0.8, 0.8, 1.0, 0.004 * share, 0.004, share, 0.02, 5)
    held = CacheBytes(int(DENSE_BYTES * share), DENSE_BYTES, DENSE_BYTES, DENSE_BYTES, 2048, claimed or share)
    needle = [float(i < 100 * right) for i in range(100)]
    noise = random.Random(str(recipe))
    losses = [2.0 + 0.01 * i + (0.96 - right) + noise.gauss(0, 0.001) for i in range(16)]
    low, high = map(math.exp, t_interval(losses))
    quality = {
        str(TASKS[0]): Quality(fmean(needle), *wilson_interval(int(sum(needle)), 100), 100, tuple(needle)),
        str(TASKS[1]): Quality(math.exp(fmean(losses)), low, high, 16, tuple(losses)),
    }
    where = {"torch": "2.13.0", "threads": 2}
    memory, read = Memory(WEIGHTS, None, None), WEIGHTS + held.decoded
    costs = Costs(held, speed, memory, Bandwidth(read, read / speed.decode, 8e9), notes, where)
    return Measurement("fake", str(recipe), costs, {task: Answer(found, (), where) for task, found in quality.items()})


def study(*recipes: str, budgets: tuple[float, ...] = (0.5, 0.25)) -> Study:
    asked = question(*recipes, budgets=budgets)
    return Study(asked, {str(recipe): measurement(recipe) for recipe in asked.recipes})


class Fake:
    """Takes the pieces of those measurements."""

    def costs(self, recipe: Recipe) -> Costs:
        return measurement(recipe).costs

    def answer(self, recipe: Recipe, task: Task) -> Answer:
        return measurement(recipe).answers[str(task)]
