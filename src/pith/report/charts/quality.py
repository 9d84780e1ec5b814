"""Quality against what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import altair as alt

from pith.report.charts.base import JOINT, MANY, Chart, Style, chart_of, drawn, filled, styles
from pith.report.front import front
from pith.report.row import Row
from pith.report.verdict import FLOOR
from pith.report.words import digits, percent
from pith.tasks import Quality, Task

Cost = Literal["bytes", "time"]

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def quality_chart(rows: Sequence[Row], task: Task, title: str, against: Cost) -> Chart:
    """The task's score against the measured share of the cache or the decode time, with the Pareto front.

    A line joins a series over its budgets; the dense model is the reference.
    """
    # a score without bounds, such as the perplexity of a model that broke, has no place on a scale
    found = [(row, q) for row in rows if math.isfinite((q := row.quality(task)).low + q.value + q.high)]
    sign = -1 if task.higher_is_better else 1
    best = [found[i][0] for i in front([(_cost(row, against), sign * q.value) for row, q in found])]
    best.sort(key=lambda row: _cost(row, against))
    x, y = _x(rows, against), _y(task, found)
    layers = [*_reference(rows[0], task, y), *_front([_value(r, r.quality(task), against, True) for r in best], x, y)]
    looks = styles(rows)
    for index, (series, look) in enumerate(looks.items()):
        values = [_value(row, q, against, row in best) for row, q in found if row.series == series]
        # methods at one budget hold equal bytes: some pixels apart, none hides another
        aside = min(5, 24 / len(looks)) * (index - (len(looks) - 1) / 2) if against == "bytes" else 0
        layers += _series(values, look, aside, len(rows) > MANY, series == FLOOR, (x, y))
    cost = "share of the cache that is held" if against == "bytes" else "decode time, ratio to dense"
    described = "; ".join(f"{r.label} {digits(q.value)} at {_shown(r, against)}" for r, q in found)
    label = "on the front, where nothing else is better in both: "
    return Chart(
        f"{title}-{against}",
        title if title == task.metric else f"{title}: {task.metric}",
        f"{'Higher' if task.higher_is_better else 'Lower'} and further left is better. Bars and the grey band are 95% "
        f"intervals; {label}{', '.join(f'`{row.label}`' for row in best)}.",
        f"Score against the {cost}. {described}. {label}{', '.join(row.label for row in best)}.",
        drawn(alt.layer(*layers), height=230),
    )


def _cost(row: Row, against: Cost) -> float:
    return row.share if against == "bytes" else row.measurement.speed.decode_ratio


def _shown(row: Row, against: Cost) -> str:
    return percent(row.share) if against == "bytes" else f"{row.measurement.speed.decode_ratio:.2f}x"


def _value(row: Row, quality: Quality, against: Cost, best: bool) -> dict[str, Any]:
    said = f"{row.label}{JOINT}{digits(quality.value)} at {_shown(row, against)}"
    return {"cost": _cost(row, against), "value": quality.value, "low": quality.low, "high": quality.high,
            "said": said, "best": best}  # fmt: skip


def _x(rows: Sequence[Row], against: Cost) -> alt.X:
    costs = [_cost(row, against) for row in rows]
    if against == "bytes":
        scale = alt.Scale(type="log", domain=[min(costs) / 1.15, 1.08 * max(costs)], nice=False)
        ticks = [t for t in TICKS if t >= min(costs) / 1.15]
        return alt.X("cost:Q", scale=scale, axis=alt.Axis(values=ticks, format="~%", title="cache held, share of dense"))
    wide = max(costs) > 6 * min(costs)
    scale = alt.Scale(type="log" if wide else "linear", zero=False, padding=14)
    return alt.X("cost:Q", scale=scale, axis=alt.Axis(title="decode time, ratio to dense", format="~g"))


def _y(task: Task, found: Sequence[tuple[Row, Quality]]) -> alt.Y:
    values = [q.value for _, q in found]
    wide = not task.higher_is_better and max(values) > 20 * min(values) > 0
    return alt.Y("value:Q", scale=alt.Scale(type="log" if wide else "linear", zero=False), axis=alt.Axis(title=None))


def _reference(row: Row, task: Task, y: alt.Y) -> list[alt.Chart]:
    dense = row.quality(task)
    base = chart_of([{"value": dense.value, "low": dense.low, "high": dense.high}])
    return [
        base.mark_rect(color="var(--text)", opacity=0.08, aria=False).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_rule(color="var(--text)", strokeDash=[5, 4], aria=False).encode(y=y),
        base.mark_text(text="dense", align="right", dy=-7, x="width", dx=-4, color="var(--text)").encode(y=y),
    ]


def _front(values: list[dict[str, Any]], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    base = chart_of(values).encode(x=x, y=y)
    return [
        base.mark_line(color="var(--accent)", strokeWidth=9, opacity=0.22, strokeCap="round", strokeJoin="round",
                       aria=False),
        base.mark_point(shape="circle", color="var(--accent)", filled=True, size=190, opacity=0.22, aria=False),
    ]  # fmt: skip


def _series(
    values: list[dict[str, Any]], look: Style, aside: float, many: bool, floor: bool, axes: tuple[alt.X, alt.Y]
) -> list[alt.Chart]:
    x, y = axes
    base = chart_of(values).encode(x=x)
    dash = {"strokeDash": [2, 3]} if floor else {}
    # among many, what is not on the front keeps its place and gives up the foreground
    faded = alt.condition("datum.best", alt.value(1), alt.value(0.4 if many else 1))
    thin = alt.condition("datum.best", alt.value(1), alt.value(0 if many else 1))
    line = base.mark_line(color=look.colour, opacity=0.15 if many else 0.55, xOffset=aside, aria=False, **dash)
    bars = base.mark_rule(color=look.colour, strokeWidth=1.5, xOffset=aside, aria=False)
    points = base.mark_point(xOffset=aside, **filled(look))
    return [
        line.encode(y=y),
        bars.encode(y=alt.Y("low:Q"), y2="high:Q", opacity=thin),
        points.encode(y=y, opacity=faded, description="said:N"),
    ]
