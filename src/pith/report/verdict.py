"""What a comparison found, in sentences; recipes stand between backticks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pith.report.calibration import Scale, scales
from pith.report.row import Row, rows
from pith.report.words import digits, headings, listed, percent
from pith.study import Study
from pith.tasks import Task
from pith.tasks.paired import COARSE, paired

FLOOR = "random_eviction"
"""The method that every other eviction must beat to be worth its name."""

WARNING = "`random_eviction` itself loses nothing that could be told: this cannot tell methods apart."


def verdict(study: Study) -> list[str]:
    """Which recipe to take, which tasks tell nothing, and which methods are no better than chance."""
    found = rows(study)
    known = scales(study, found)
    sentences = [_take(found, known), *map(_silent, known), _floor(found, study.question.tasks)]
    return [sentence for sentence in sentences if sentence]


def taken(found: Sequence[Row], known: Sequence[Scale]) -> Row | None:
    """The recipe to take: of those that hold fewer bytes and keep every task that tells, the one with the fewest.

    It keeps a task where no loss can be told and none of a tenth was seen: few examples tell little, and what they do
    not tell is no reason to take a recipe. Where two hold the same bytes it is the faster one.
    """
    telling = [scale for scale in known if scale.tells]
    keeping = [row for row in found if _is_smaller(row) and telling and all(_keeps(row, scale) for scale in telling)]
    return min(keeping, key=lambda row: (row.held, row.decode_ratio or 1.0), default=None)


def _take(found: Sequence[Row], known: Sequence[Scale]) -> str:
    smaller = [row for row in found if _is_smaller(row)]
    telling = [scale for scale in known if scale.tells]
    if not smaller:
        return "Take none: no recipe held fewer bytes than the dense model."
    if not telling:
        return "Take none yet: without a task that the dense model can do, nothing tells what a recipe loses."
    best = taken(found, known)
    if best is None:
        return _none(smaller, telling)
    keeping = [row for row in smaller if all(_keeps(row, scale) for scale in telling)]
    rank = f"the fewest of the {len(keeping)} recipes that do" if len(keeping) > 1 else "the only recipe that does"
    up = [scale for scale in telling if best.difference(scale.task).verdict == "better"]
    kept = [scale for scale in telling if scale not in up]
    ways = [f"is better than the dense model on {listed(_names(up, telling))}"] * bool(up)
    ways += [f"shows no loss on {listed(_names(kept, telling))}"] * bool(kept)
    return (
        f"Take `{best.label}`: it {listed(ways)} and holds {percent(best.share)} of the {_of_what(best)}, {rank}; "
        f"{_time(best)}{_power(best, telling)}."
    )


def _none(smaller: Sequence[Row], telling: Sequence[Scale]) -> str:
    """Where every recipe loses: which loses least, and what."""
    nearest = min(smaller, key=lambda row: (max(_loss(row, scale) for scale in telling), row.share))
    losses = [
        f"{scale.name} {digits(nearest.quality(scale.task).value)} against {digits(scale.dense.value)}"
        for scale in telling
        if not _keeps(nearest, scale)
    ]
    return (
        "Take none if nothing may be lost: every recipe that holds fewer bytes is worse than the dense model, or came "
        f"out a tenth below it, on {listed(_names(telling, telling), 'or')}; the least is lost by `{nearest.label}` "
        f"({listed(losses)}), which holds {percent(nearest.share)} of the {_of_what(nearest)}{_and_takes(nearest)}"
        f"{_power(nearest, telling)}."
    )


def _and_takes(row: Row) -> str:
    """Return what follows the bytes of a recipe: its decode time, where it was measured."""
    if row.decode_ratio is None:
        return "; times were not measured"
    return f" and takes {row.decode_ratio:.2f}x the time for a decoded token{_noise(row)}"


def _noise(row: Row) -> str:
    return ", in runs too noisy to trust" if row.is_noisy else ""


def _time(row: Row) -> str:
    """Return what is known of a recipe's decode time."""
    if row.decode_ratio is None:
        return "times were not measured"
    return f"a decoded token takes {row.decode_ratio:.2f}x the time{_noise(row)}"


def _keeps(row: Row, scale: Scale) -> bool:
    """Whether no loss on the task can be told, and none of a tenth was seen."""
    found = row.difference(scale.task)
    if found.verdict == "worse":
        return False
    if scale.task.logarithmic:
        return found.value <= 1 + COARSE
    lost = -found.value if scale.task.higher_is_better else found.value
    return lost <= _coarse(scale)


def _coarse(scale: Scale) -> float:
    """A tenth: ten points of a share, a tenth of the dense model's of any other score."""
    return COARSE if scale.task.higher_is_better else COARSE * abs(scale.dense.value)


def _names(scales: Sequence[Scale], known: Sequence[Scale]) -> list[str]:
    """The tasks' names; those of one name that differ in one parameter, where all are there, are one name."""
    found: dict[str, list[Scale]] = {}
    for scale in scales:
        found.setdefault(scale.task.name, []).append(scale)
    names: list[str] = []
    for name, those in found.items():
        apart = {p.name for p in those[0].task.parameters() if len({getattr(s.task, p.name) for s in those}) > 1}
        whole = len(those) == sum(scale.task.name == name for scale in known)
        names += [f"{name} at every {apart.pop()}"] if whole and len(apart) == 1 else [scale.name for scale in those]
    return names


def _loss(row: Row, scale: Scale) -> float:
    """What a recipe loses, as a share of what the dense model has above chance; of a perplexity, its logarithm."""
    found = row.difference(scale.task)
    if scale.task.logarithmic:
        return math.log(found.value) if found.value > 0 else math.inf
    lost = -found.value if scale.task.higher_is_better else found.value
    room = abs(scale.dense.value - (scale.chance or 0.0))
    return lost / room if room else math.inf


def _power(row: Row, telling: Sequence[Scale]) -> str:
    """What losses so few examples would not show, and how many examples would."""
    weak = [(row.difference(scale.task), scale) for scale in telling]
    weak = [(d, scale) for d, scale in weak if d.needed is not None and d.verdict == "not distinguishable"]
    if not weak:
        return ""
    found, scale = max(weak, key=lambda pair: pair[0].needed or 0)
    if scale.task.logarithmic:
        size, goal = f"a factor of {digits(found.detectable)}", digits(1 + COARSE)
    else:
        size, goal = digits(found.detectable), digits(_coarse(scale))
    would = f"a loss under {size} would not show" if found.detectable < math.inf else "no loss would show"
    rest = f"; likewise on {len(weak) - 1} more" if len(weak) > 1 else ""
    return f"; but with {found.n} examples of {scale.name} {would} (about {found.needed:,} would show {goal}{rest})"


def _silent(scale: Scale) -> str:
    """That a task tells nothing, because the dense model does not do it."""
    if scale.tells or scale.chance is None:
        return ""
    side = "above" if scale.task.higher_is_better else "below"
    return (
        f"{scale.name} tells nothing here: the dense model's {digits(scale.dense.value)} is not {side} chance "
        f"({digits(scale.chance)})."
    )


def _floor(found: Sequence[Row], tasks: Sequence[Task]) -> str:
    """Which evictions are not better than random ones at the same budget, where chance does lose quality."""
    single = [row for row in found if len(row.recipe) == 1 and row.budgets]
    floors = {row.budgets: row for row in reversed(single) if row.recipe.methods[0].name == FLOOR}
    pairs = [(r, floors[r.budgets]) for r in single if r.recipe.methods[0].name != FLOOR and r.budgets in floors]
    tells = [(r, floor, task, name) for r, floor in pairs for task, name in zip(tasks, headings(tasks), strict=True)
             if not (floor.keeps(task) and r.keeps(task))]  # fmt: skip
    if not tells:
        return WARNING if pairs else ""
    failed: dict[str, dict[str, list[str]]] = {}
    tried: dict[str, set[str]] = {}
    for row, floor, task, name in tells:
        tried.setdefault(row.series, set()).add(str(row.budgets[0]))
        if paired(row.quality(task), floor.quality(task), task, len(tells)).verdict != "better":
            failed.setdefault(row.series, {}).setdefault(name, []).append(str(row.budgets[0]))
    if not failed:
        return f"Every other method beats `{FLOOR}` at the same budget wherever the two can be told apart."
    where = (f"`{series}` on {_where(by_task, len(tried[series]))}" for series, by_task in failed.items())
    return f"Not better than `{FLOOR}` at the same budget: {'; '.join(where)}."


def _where(by_task: dict[str, list[str]], budgets: int) -> str:
    """On which tasks at which budgets; where that is nearly everywhere, how many."""
    if len(by_task) > 2:
        return f"{len(by_task)} tasks"
    named = {task: "every budget" if 1 < len(at) == budgets else listed(at) for task, at in by_task.items()}
    if len(set(named.values())) == 1:
        return f"{listed(list(named))} (at {next(iter(named.values()))})"
    return listed([f"{task} (at {at})" for task, at in named.items()])


def _of_what(row: Row) -> str:
    """Of which bytes a share is told."""
    return "bytes of the dense model's weights and cache" if row.weighs else "dense cache's bytes"


def _is_smaller(row: Row) -> bool:
    return not row.is_dense and row.share < 1
