"""Scores along a text: whether quality falls with distance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import altair as alt

from pith.report.charts.base import Chart, chart_of, chosen, drawn, styles
from pith.report.row import Row
from pith.report.words import digits, headings
from pith.tasks import Task

LINES = 9
"""More lines than this cannot be told apart."""

DASHES = ([1, 0], [7, 3], [2, 2], [8, 3, 2, 3])
"""What tells apart the budgets of one series, whose lines have one colour."""


def curve_charts(rows: Sequence[Row], tasks: Sequence[Task], first: Row | None = None) -> list[Chart]:
    """A chart for each task that has curves: the score by position, a line a recipe.

    Args:
        rows: the dense model's first.
        tasks: the study's.
        first: a recipe that is shown whatever the room.
    """
    named = zip(tasks, headings(tasks), strict=True)
    return [_chart(rows, task, name, first) for task, name in named if rows[0].quality(task).curve]


def _chart(rows: Sequence[Row], task: Task, title: str, first: Row | None) -> Chart:
    shown = [row for row in chosen(rows, LINES, first) if row.quality(task).curve]
    order = [row.label for row in shown]
    values = [
        {"recipe": row.label, "position": position, "value": score}
        for row in shown
        for position, score in row.quality(task).curve
        if math.isfinite(score)
    ]
    looks, seen = styles(rows), Counter[str]()
    colours = [looks[row.series].colour if row.series in looks else "var(--text)" for row in shown]
    dashes = [[6, 4] if row.is_dense else DASHES[_next(seen, row.series) % len(DASHES)] for row in shown]
    legend = alt.Legend(orient="bottom", columns=1, symbolType="stroke", symbolStrokeWidth=2.5)
    axis = alt.Axis(title="token", format=",d", tickCount=4)
    base = chart_of(values).encode(
        x=alt.X("position:Q", scale=alt.Scale(zero=False, nice=False), axis=axis),
        y=alt.Y("value:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title=None)),
        color=alt.Color("recipe:N", sort=order, scale=alt.Scale(domain=order, range=colours), legend=legend),
        strokeDash=alt.StrokeDash("recipe:N", sort=order, scale=alt.Scale(domain=order, range=dashes), legend=legend),
    )
    few = f"; {len(shown)} of {len(rows)} recipes are drawn" if len(shown) < len(rows) else ""
    described = "; ".join(
        f"{row.label} {digits(row.quality(task).curve[0][1])} at token {row.quality(task).curve[0][0]}, "
        f"{digits(row.quality(task).curve[-1][1])} at token {row.quality(task).curve[-1][0]}"
        for row in shown
    )
    scale = "mean loss in nats, lower is better" if task.logarithmic else task.metric
    return Chart(
        f"{title}-curve",
        f"{title}: along the text",
        f"Each point is the mean over the examples ({scale}){few}.",
        f"Score by position. {described}.",
        drawn(base.mark_line(strokeWidth=2, point=False, aria=False), height=230 + 18 * len(order)),
    )


def _next(seen: Counter[str], series: str) -> int:
    seen[series] += 1
    return seen[series] - 1
