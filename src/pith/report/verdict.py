"""What a comparison found, in sentences; recipes stand between backticks."""

from __future__ import annotations

import math
from statistics import fmean, stdev

from pith.report.row import Row, rows
from pith.report.table import headings
from pith.report.words import listed, percent
from pith.study import Study
from pith.tasks import Quality, Task

FLOOR = "random_eviction"
"""The method that every other eviction must beat to be worth its name."""

WARNING = "`random_eviction` itself stays within the dense interval everywhere: this cannot tell methods apart."


def verdict(study: Study) -> list[str]:
    """Which recipe keeps the quality at the fewest bytes, and which methods are no better than chance."""
    found = rows(study)
    return [s for s in (_cheapest(found, study.question.tasks), _floor(found, study.question.tasks)) if s]


def better(mine: Quality, other: Quality, task: Task) -> bool:
    """Whether the paired differences, example by example, are above zero with 95% confidence."""
    sign = 1 if task.higher_is_better else -1
    differences = [sign * (a - b) for a, b in zip(mine.scores, other.scores, strict=True)]
    if len(differences) < 2:
        return False
    return fmean(differences) > 1.96 * stdev(differences) / math.sqrt(len(differences))


def _cheapest(found: list[Row], tasks: tuple[Task, ...]) -> str:
    smaller = [row for row in found if not row.is_dense and row.share < 1]
    keeping = [row for row in smaller if all(row.keeps(task) for task in tasks)]
    names = listed(headings(tasks))
    if not smaller:
        return "No recipe held fewer bytes than the dense model."
    if not keeping:
        return f"No recipe that holds fewer bytes keeps {names} within the dense model's 95% interval."
    best = min(keeping, key=lambda row: row.measurement.bytes.prefill)
    rank = f"the fewest of the {len(keeping)} recipes that do" if len(keeping) > 1 else "the only recipe that does"
    noise = ", in runs too noisy to trust" if best.is_noisy else ""
    return (
        f"`{best.label}` keeps {names} within the dense model's 95% interval and holds {percent(best.share)} of its "
        f"cache bytes, {rank}; a decoded token takes {best.measurement.speed.decode_ratio:.2f}x the dense model's "
        f"time{noise}."
    )


def _floor(found: list[Row], tasks: tuple[Task, ...]) -> str:
    """Which evictions are not better than random ones at the same budget, where chance does lose quality."""
    single = [row for row in found if len(row.recipe) == 1 and row.budgets]
    floors = {row.budgets: row for row in reversed(single) if row.recipe.methods[0].name == FLOOR}
    pairs = [(r, floors[r.budgets]) for r in single if r.recipe.methods[0].name != FLOOR and r.budgets in floors]
    tells = [(r, floor, task, name) for r, floor in pairs for task, name in zip(tasks, headings(tasks), strict=True)
             if not (floor.keeps(task) and r.keeps(task))]  # fmt: skip
    if not tells:
        return WARNING if pairs else ""
    failed: dict[str, dict[str, list[str]]] = {}
    for row, floor, task, name in tells:
        if not better(row.quality(task), floor.quality(task), task):
            failed.setdefault(row.series, {}).setdefault(name, []).append(str(row.budgets[0]))
    if not failed:
        return f"Every other method beats `{FLOOR}` at the same budget wherever the two can be told apart."
    where = (
        f"`{series}` on {listed([f'{task} (at {listed(budgets)})' for task, budgets in by_task.items()])}"
        for series, by_task in failed.items()
    )
    return f"Not better than `{FLOOR}` at the same budget: {'; '.join(where)}."
