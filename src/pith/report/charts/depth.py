"""Recall over the depth of the answer and the length of the context, a map a recipe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import altair as alt

from pith.report.charts.base import Chart, spec, svg_of
from pith.report.row import Row
from pith.report.words import headings
from pith.tasks import Task

BINS = 5
STEPS = 6
"""The page's style sheet has so many shades, --heat-0 and on, and a colour of text on each."""

CELL = (44, 30)
"""Width and height of a cell in pixels."""


@dataclass(frozen=True)
class Maps:
    """The maps of one group of tasks, which differ in nothing but their length.

    Attributes:
        title: the task.
        charts: a map a recipe, all on one scale.
        together: all maps in one drawing, for a paper.
    """

    title: str
    charts: tuple[Chart, ...]
    together: Chart


def depth_maps(rows: Sequence[Row], tasks: Sequence[Task]) -> list[Maps]:
    """The maps of every group of tasks whose examples have a depth."""
    groups: dict[tuple[object, ...], list[Task]] = defaultdict(list)
    for task in tasks:
        names = [p.name for p in task.parameters()]
        if "length" in names and all(row.quality(task).depths for row in rows):
            groups[task.name, *(getattr(task, name) for name in names if name != "length")].append(task)
    titles = headings([group[0] for group in groups.values()])
    return [_maps(rows, group, title) for group, title in zip(groups.values(), titles, strict=True)]


def _maps(rows: Sequence[Row], tasks: Sequence[Task], name: str) -> Maps:
    lengths = [str(length) for length in sorted({_length(task) for task in tasks})]
    values = {row.label: _cells(row, tasks) for row in rows}
    one = spec(alt.layer(*_layers(lengths), data=alt.Data(values=[])))
    charts = tuple(_chart(label, cells, lengths, one) for label, cells in values.items())
    everything = [{"recipe": label, **cell} for label, cells in values.items() for cell in cells]
    facet = alt.Facet("recipe:N", sort=list(values), title=None)
    together = alt.layer(*_layers(lengths), data=alt.Data(values=everything)).facet(facet, columns=4)
    whole = Chart(f"{name}-depth", name, "", "", svg_of(spec(together)))
    return Maps(name, charts, whole)


def _cells(row: Row, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """The mean score in each bin of depths at each length; a bin without an example is left out."""
    found = []
    for task in tasks:
        quality = row.quality(task)
        bins: dict[int, list[float]] = defaultdict(list)
        for depth, score in zip(quality.depths, quality.scores, strict=True):
            bins[min(int(depth * BINS), BINS - 1)].append(score)
        for index, scores in sorted(bins.items()):
            mean = fmean(scores)
            step = min(int(mean * STEPS), STEPS - 1)
            said = f"{_depth(index)} of {_length(task)} tokens: {mean:.2f} over {len(scores)} examples"
            shade = {"ground": f"var(--heat-{step})", "ink": f"var(--ink-{step})"}
            cell: dict[str, Any] = {"length": str(_length(task)), "bin": index, "depth": _depth(index), "value": mean}
            found.append({**cell, **shade, "text": f"{mean:.2f}", "said": said})
    return found


def _length(task: Task) -> int:
    return int(getattr(task, "length"))  # noqa: B009  (not every task has one)


def _depth(index: int) -> str:
    return f"{100 * index // BINS}\u2013{100 * (index + 1) // BINS}%"


def _layers(lengths: list[str]) -> list[alt.Chart]:
    x = alt.X("length:N", sort=lengths, scale=alt.Scale(domain=lengths, padding=0.04),
              axis=alt.Axis(title="tokens", labelAngle=0, grid=False, ticks=False, domain=False))  # fmt: skip
    depths = [_depth(i) for i in range(BINS)]
    y = alt.Y("depth:N", sort=depths, scale=alt.Scale(domain=depths, padding=0.04),
              axis=alt.Axis(title=None, grid=False, ticks=False, domain=False))  # fmt: skip
    size = {"width": CELL[0] * len(lengths), "height": CELL[1] * BINS}
    base = alt.Chart().encode(x=x, y=y).properties(**size)
    return [
        base.mark_rect().encode(fill=alt.Fill("ground:N", scale=None), description="said:N"),
        base.mark_text(fontSize=11, aria=False).encode(text="text:N", fill=alt.Fill("ink:N", scale=None)),
    ]


def _chart(label: str, cells: list[dict[str, Any]], lengths: list[str], one: dict[str, Any]) -> Chart:
    ordered = sorted(cells, key=lambda c: (lengths.index(c["length"]), c["bin"]))
    said = f"{label}: " + "; ".join(c["said"] for c in ordered)
    return Chart(label, label, "", said, svg_of({**one, "data": {"values": cells}}))
