"""The comparison's table; the terminal, the page and the JSON all show this one."""

from __future__ import annotations

from dataclasses import dataclass

from pith.report.row import Row, rows
from pith.report.words import bytes_, digits, percent, seconds
from pith.study import Study
from pith.tasks import Task

READING = (
    "Scores with 95% intervals; ▼ is worse than the dense model's. Cache held after the prompt: share of dense "
    "(claimed). Times: ratio to dense, 0.50x is half the time; ~ is too noisy to trust, and dense against itself shows "
    "the noise."
)


@dataclass(frozen=True)
class Cell:
    """One entry: what counts, a detail beside it, and whether it warns."""

    text: str
    detail: str = ""
    warns: bool = False


@dataclass(frozen=True)
class Column:
    """A heading, and what stands below it in small print."""

    title: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows of cells; the first cell of a row is its heading, the first row is the dense model."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table(study: Study) -> Table:
    """The study's table, as far as its measurements were made."""
    tasks, found = study.question.tasks, rows(study)
    columns = (
        Column("recipe"),
        *(Column(name, _metric(task, found)) for name, task in zip(headings(tasks), tasks, strict=True)),
        Column("cache held", "after the prompt, share of dense (claimed)"),
        Column("prefill time", "ratio to dense"),
        Column("decode time", "per token, ratio to dense"),
    )
    return Table(columns, tuple(_cells(row, tasks) for row in found))


def headings(tasks: tuple[Task, ...]) -> list[str]:
    """Each task's name, or its whole text where two tasks have one name."""
    names = [task.name for task in tasks]
    return [task.name if names.count(task.name) == 1 else str(task) for task in tasks]


def _metric(task: Task, found: list[Row]) -> str:
    direction = "higher" if task.higher_is_better else "lower"
    examples = [f"n={row.quality(task).n}" for row in found[:1]]
    return ", ".join([task.metric, f"{direction} is better", *examples])


def _cells(row: Row, tasks: tuple[Task, ...]) -> tuple[Cell, ...]:
    speed, held = row.measurement.speed, row.measurement.bytes
    claimed = "" if row.is_dense else f" ({percent(held.claimed)})"
    noisy = "~" if row.is_noisy else ""
    return (
        Cell(row.label),
        *(_score(row, task) for task in tasks),
        Cell(bytes_(held.prefill), percent(held.measured) + claimed),
        Cell(f"{speed.prefill_ratio:.2f}x", seconds(speed.prefill)),
        Cell(f"{noisy}{speed.decode_ratio:.2f}x", seconds(speed.decode)),
    )


def _score(row: Row, task: Task) -> Cell:
    quality, keeps = row.quality(task), row.keeps(task)
    # an en dash: a hyphen would read as a minus
    interval = f"{digits(quality.low)}\u2013{digits(quality.high)}"
    return Cell(digits(quality.value) + ("" if keeps else " ▼"), interval, warns=not keeps)
