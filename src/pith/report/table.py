"""The comparison's table; the terminal, the page and the exports all show this one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pith.core import InputError
from pith.measure.seconds import RUNS
from pith.report.calibration import scales
from pith.report.row import Row, comparisons, rows
from pith.report.words import bytes_, digits, headings, percent, seconds
from pith.study import Study
from pith.tasks import Task

READING = (
    "Scores with 95% intervals. ▼ is worse and ▲ better than the dense model, example by example; no mark: no "
    "difference can be told, which does not mean that there is none. Cache held after the prompt: share of dense "
    "(claimed). Times: ratio to dense, 0.50x is half the time; ~ is too noisy to trust, and dense against itself shows "
    "the noise."
)

UNTIMED = READING.partition(" Times:")[0] + " Times were not measured."

SILENT = " ?"
"""The mark of the dense model's score on a task that tells nothing."""

SILENCE = "? is not better than chance: nothing in this column tells what a recipe loses."

MARKS = {"worse": " ▼", "better": " ▲", "not distinguishable": ""}


@dataclass(frozen=True)
class Cell:
    """One entry.

    Attributes:
        text, detail: what counts, and what stands beside it in small print.
        value: what a column is sorted by; None where it is sorted by the text.
        warns: whether it is bad news.
        more: a second line of small print, for which only the page has room.
    """

    text: str
    detail: str = ""
    value: float | None = None
    warns: bool = False
    more: str = ""


@dataclass(frozen=True)
class Column:
    """A heading, what stands below it in small print, and whether it may be left out where room is short."""

    title: str
    detail: str = ""
    spare: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and rows of cells; the first cell of a row is its heading, the first row is the dense model.

    `families` has each row's contracts.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    families: tuple[tuple[str, ...], ...] = ()


def table(study: Study) -> Table:
    """The study's table, as far as its measurements were made.

    Raises:
        InputError: some tasks show the question before the cache is made smaller and others do not; their scores do
            not stand in one table.
    """
    tasks, found = study.question.tasks, rows(study)
    asked = {task.asks for task in tasks} - {None}
    if len(asked) > 1:
        raise InputError("tasks that are query-aware and tasks that are query-agnostic do not stand in one table")
    peak = any(row.measurement.costs.memory.peak for row in found)
    band = any((b := row.measurement.costs.bandwidth) and b.achieved for row in found)
    weighs = any(row.weighs for row in found)
    timed = any(row.measurement.speed for row in found)
    times = [Column("prefill time", "ratio to dense"), Column("decode time", "per token, ratio to dense")]
    columns = (
        Column("recipe"),
        *(Column(name, _metric(task, found)) for name, task in zip(headings(tasks), tasks, strict=True)),
        *([Column("weights held", "after a forward, share of dense")] if weighs else []),
        Column("cache held", "after the prompt, share of dense (claimed)"),
        *([Column("peak memory", "of the process, ratio to dense")] if peak else []),
        *(times if timed else [Column("times")]),
        *([Column("bandwidth", "of decoding, share of this machine's copy", spare=True)] if band else []),
    )
    cells = [_cells(row, tasks, peak, band, timed) for row in found]
    for index, scale in enumerate(scales(study, found), start=1):
        if not scale.tells:
            dense = cells[0][index]
            marked = replace(dense, text=dense.text + SILENT, warns=True)
            cells[0] = (*cells[0][:index], marked, *cells[0][index + 1 :])
    return Table(columns, tuple(cells), tuple(row.families for row in found))


def reading(study: Study) -> str:
    """How the table is to be read, with what its intervals are corrected for."""
    tasks, how = len(study.question.tasks), _times(study)
    if any(len(recipe.weights) for recipe in study.question.recipes):
        how = how.replace("Cache held after the prompt", "Weights held after a forward, cache held after the prompt")
    if not all(scale.tells for scale in scales(study)):
        how = f"{how} {SILENCE}"
    if not tasks or len(study.question.recipes) < 2:
        return how
    number = comparisons(study)
    recipes = number // tasks
    what = f"{recipes} recipe{'s' * (recipes > 1)} on {tasks} task{'s' * (tasks > 1)}"
    correction = f"Differences are corrected for {number} comparisons ({what}; Bonferroni)." if number > 1 else ""
    return f"{how} {correction}".strip()


def _times(study: Study) -> str:
    """Return how the table is to be read, with how sure the intervals of few timed runs are."""
    speeds = [one.speed for one in study.measurements.values() if one.speed]
    if study.measurements and not speeds:
        return UNTIMED
    fewest = min(speeds, key=lambda speed: speed.runs, default=None)
    if fewest is None or fewest.runs >= RUNS:
        return READING
    pairs = f"{fewest.runs} pairs of runs" if fewest.runs > 1 else "one pair of runs"
    return (
        f"{READING} They are of {pairs}, whose interval holds the true ratio with a probability of {fewest.held:.0%}."
    )


def _metric(task: Task, found: list[Row]) -> str:
    direction = "higher" if task.higher_is_better else "lower"
    examples = [f"n={row.quality(task).n}" for row in found[:1]]
    asks = [f"query-{task.asks}"] if task.asks else []
    return ", ".join([task.metric, f"{direction} is better", *asks, *examples])


def _cells(row: Row, tasks: tuple[Task, ...], peak: bool, band: bool, timed: bool) -> tuple[Cell, ...]:
    held = row.measurement.bytes
    claimed = "" if row.is_dense else f" ({percent(held.claimed)})"
    return (
        Cell(row.label),
        *(_score(row, task) for task in tasks),
        *([_weights(row)] if row.weighs else []),
        Cell(bytes_(held.prefill), percent(held.measured) + claimed, held.prefill),
        *([_peak(row)] if peak else []),
        *_speed(row, timed),
        *([_bandwidth(row)] if band else []),
    )


def _speed(row: Row, timed: bool) -> list[Cell]:
    """Return the cells of the times: two where something of the study was timed, and one where nothing was."""
    speed = row.measurement.speed
    if speed is None:
        return [Cell("not measured")] * (1 + timed)
    noisy, rough = "~" * row.is_noisy, "~" * (not speed.prefill_tells)
    return [
        Cell(f"{rough}{speed.prefill_ratio:.2f}x", seconds(speed.prefill), speed.prefill_ratio),
        Cell(f"{noisy}{speed.decode_ratio:.2f}x", seconds(speed.decode), speed.decode_ratio),
    ]


def _score(row: Row, task: Task) -> Cell:
    quality = row.quality(task)
    # an en dash: a hyphen would read as a minus
    interval = f"{digits(quality.low)}\u2013{digits(quality.high)}"
    if row.is_dense:
        return Cell(digits(quality.value), interval, quality.value)
    verdict = row.difference(task).verdict
    text = digits(quality.value) + MARKS[verdict]
    return Cell(text, interval, quality.value, verdict == "worse", difference(row, task))


def difference(row: Row, task: Task) -> str:
    """The paired difference to the dense model, or the ratio of a perplexity, with its interval."""
    found = row.difference(task)

    def shown(value: float) -> str:
        if task.logarithmic:
            return f"\u00d7{digits(value)}"
        size = f"{abs(value):.3f}" if abs(value) < 0.9995 else digits(abs(value))
        return ("+" if value > 0 else "\u2212" if value < 0 else "") + size

    return f"{shown(found.value)} ({shown(found.low)} to {shown(found.high)})"


def _peak(row: Row) -> Cell:
    memory = row.measurement.costs.memory
    if not memory.peak:
        return Cell("\u2013")
    ratio = f"{memory.peak / memory.dense_peak:.2f}x" if memory.dense_peak else ""
    return Cell(bytes_(memory.peak), ratio, memory.peak)


def _weights(row: Row) -> Cell:
    held = row.measurement.costs.memory.weights
    return Cell(bytes_(held), percent(row.weights_share), held)


def _bandwidth(row: Row) -> Cell:
    found = row.measurement.costs.bandwidth
    if not found or not found.achieved:
        return Cell("\u2013")
    return Cell(percent(found.achieved / found.copy), f"{digits(found.achieved / 1e9)} GB/s", found.achieved)
