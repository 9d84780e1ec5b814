"""All the charts of a comparison, each drawn once for the page and for the files beside it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from pith.core.errors import PithWarning
from pith.report.calibration import scales
from pith.report.charts import (
    Chart,
    Maps,
    bytes_chart,
    curve_charts,
    depth_maps,
    memory_chart,
    quality_chart,
    search_chart,
    time_chart,
)
from pith.report.charts.quality import Cost
from pith.report.row import Row
from pith.report.verdict import taken
from pith.report.words import headings
from pith.search.sought import Sought
from pith.study import Study
from pith.tasks import Task

T = TypeVar("T")

_NONE: tuple[Chart, ...] = ()


@dataclass(frozen=True)
class Figures:
    """The charts, by where the page shows them.

    Attributes:
        quality: for each task its name and metric, and the charts of its score against bytes and against time.
        costs: decode time, and bytes claimed against measured.
        curves: scores along a text.
        maps: recall over depth and length.
        search: what a search tried.
    """

    quality: tuple[tuple[str, tuple[Chart, ...]], ...]
    costs: tuple[Chart, ...]
    curves: tuple[Chart, ...]
    maps: tuple[Maps, ...]
    search: Chart | None

    def files(self) -> Iterator[Chart]:
        """Every chart that stands beside the page as a file; the maps of one task together."""
        for _, charts in self.quality:
            yield from charts
        yield from self.costs
        yield from self.curves
        yield from (maps.together for maps in self.maps)
        if self.search:
            yield self.search


def figures(study: Study, found: Sequence[Row], sought: Sought | None = None) -> Figures:
    """Draw every chart for which there is something to draw.

    Charts that cannot be drawn are left out, with a warning that says why: the page is worth more than one of them.
    """
    tasks = study.question.tasks
    several = len(found) > 1
    named = zip(tasks, headings(tasks), strict=True)
    # a dense model without a finite score leaves nothing to draw the others against
    drawable = [(task, name) for task, name in named if several and math.isfinite(found[0].quality(task).value)]
    return Figures(
        quality=tuple(
            (name if task.name == task.metric else f"{name}: {task.metric}", charts)
            for task, name in drawable
            if (charts := _drawn(name, partial(_quality, found, task, name), _NONE))
        ),
        costs=_drawn("the costs", lambda: _costs(found), _NONE) if several else (),
        curves=_drawn(
            "the curves", lambda: tuple(curve_charts(found, tasks, taken(found, scales(study, list(found))))), ()
        ),
        maps=_drawn("the maps of depth and length", lambda: tuple(depth_maps(found, tasks)), ()),
        search=_drawn("the search", lambda: search_chart(sought), None) if sought else None,
    )


def _quality(found: Sequence[Row], task: Task, name: str) -> tuple[Chart, ...]:
    ways: tuple[Cost, ...] = ("bytes", "time") if _timed(found) else ("bytes",)
    return tuple(quality_chart(found, task, name, way) for way in ways)


def _drawn(what: str, draw: Callable[[], T], without: T) -> T:
    """Return what `draw` returns, or `without` where it fails."""
    try:
        return draw()
    except Exception as error:  # the drawing libraries may fail in any way
        why = (str(error).strip().splitlines() or [""])[0][:100]
        line = f"the charts of {what[:100]} were not drawn: {type(error).__name__}: {why}"
        warnings.warn(line, PithWarning, stacklevel=3)
        return without


def _costs(found: Sequence[Row]) -> tuple[Chart, ...]:
    weighed = (memory_chart(found),) if any(row.weighs for row in found) else ()
    timed = (time_chart(found),) if _timed(found) else ()
    return *timed, bytes_chart(found), *weighed


def _timed(found: Sequence[Row]) -> bool:
    """Return whether every recipe was timed."""
    return all(row.measurement.speed for row in found)
