"""Quality against what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import altair as alt

from pith.report.charts.base import JOINT, MANY, Chart, chart_of, drawn, literal, looked, marked, ratios, styles
from pith.report.front import front
from pith.report.row import Row, counted
from pith.report.verdict import FLOOR
from pith.report.words import digits, percent
from pith.tasks import Quality, Task

Cost = Literal["bytes", "time"]

PIXELS = 360
"""About the width of the scale."""

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
    x, y, looks = _x(rows, against), _y(task, found), styles(rows)
    values = [_value(row, q, against, row in best) for row, q in found]
    for value, (row, _) in zip(values, found, strict=True):
        if not row.is_dense:
            value |= {"series": row.series, **looked(looks[row.series])}
    recipes = [v for v in values if "series" in v]
    if against == "bytes":
        _set_aside(recipes, list(looks), [_cost(row, against) for row in rows])
    layers = [
        *_reference(_value(rows[0], rows[0].quality(task), against, True), x, y),
        *_front([v for v in values if v["best"]], y),
        *_recipes(recipes, x, y, many=len(rows) > MANY),
    ]
    cost = f"share of the {counted(rows)} that is held" if against == "bytes" else "decode time, ratio to dense"
    described = "; ".join(f"{r.label} {digits(q.value)} at {_shown(r, against)}" for r, q in found)
    label = "on the front, where nothing is better in both: "
    return Chart(
        f"{title}-{against}",
        "Quality against bytes" if against == "bytes" else "Quality against time",
        f"{'Higher' if task.higher_is_better else 'Lower'} and further left is better. Bars and the grey band are 95% "
        f"intervals; {label}{', '.join(f'`{row.label}`' for row in best)}.",
        f"Score against the {cost}. {described}. {label}{', '.join(row.label for row in best)}.",
        drawn(alt.layer(*layers), height=230),
    )


def _cost(row: Row, against: Cost) -> float:
    return row.share if against == "bytes" else row.decode_ratio or math.nan


def _shown(row: Row, against: Cost) -> str:
    return percent(row.share) if against == "bytes" else f"{_cost(row, against):.2f}x"


def _value(row: Row, quality: Quality, against: Cost, best: bool) -> dict[str, Any]:
    said = f"{row.label}{JOINT}{digits(quality.value)} at {_shown(row, against)}"
    return {"cost": _cost(row, against), "value": quality.value, "low": quality.low, "high": quality.high,
            "said": said, "best": best, "true": _cost(row, against)}  # fmt: skip


def _x(rows: Sequence[Row], against: Cost) -> alt.X:
    costs = [_cost(row, against) for row in rows]
    if against == "bytes":
        scale = alt.Scale(type="log", domain=[min(costs) / 1.15, 1.08 * max(costs)], nice=False)
        ticks = [t for t in TICKS if t >= min(costs) / 1.15]
        return alt.X(
            "cost:Q", scale=scale,
            axis=alt.Axis(values=ticks, format="~%", title=f"{counted(rows)} held, share of dense"),
        )  # fmt: skip
    return alt.X("cost:Q", **ratios(costs, "decode time, ratio to dense"))


def _y(task: Task, found: Sequence[tuple[Row, Quality]]) -> alt.Y:
    values = [q.value for _, q in found]
    wide = not task.higher_is_better and max(values) > 20 * min(values) > 0
    return alt.Y("value:Q", scale=alt.Scale(type="log" if wide else "linear", zero=False), axis=alt.Axis(title=None))


def _reference(dense: dict[str, Any], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    base = chart_of([dense])
    return [
        base.mark_rect(color="var(--text)", opacity=0.08, aria=False).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_rule(color="var(--text)", strokeDash=[5, 4], aria=False).encode(y=y),
        base.mark_text(text="dense", align="right", dy=-7, x="width", dx=-4, color="var(--text)").encode(y=y),
        base.mark_point(shape="circle", filled=True, color="var(--text)", size=40, opacity=1).encode(
            x=x, y=y, description="said:N"),
    ]  # fmt: skip


def _front(values: list[dict[str, Any]], y: alt.Y) -> list[alt.Chart]:
    base = chart_of(sorted(values, key=lambda v: v["true"])).encode(x=alt.X("true:Q"), y=y)
    return [
        base.mark_line(color="var(--accent)", strokeWidth=9, opacity=0.22, strokeCap="round", strokeJoin="round",
                       aria=False),
        base.mark_point(shape="circle", color="var(--accent)", filled=True, size=190, opacity=0.22, aria=False),
    ]  # fmt: skip


def _set_aside(values: list[dict[str, Any]], series: list[str], costs: Sequence[float]) -> None:
    """Methods at one budget hold equal bytes: drawn some pixels apart, none hides another."""
    step = min(5, 24 / len(series)) * math.log(max(costs) / min(costs) * 1.25) / PIXELS
    for value in values:
        value["cost"] *= math.exp(step * (series.index(value["series"]) - (len(series) - 1) / 2))


def _recipes(values: list[dict[str, Any]], x: alt.X, y: alt.Y, many: bool) -> list[alt.Chart]:
    """Lines, intervals and marks; among many, what is not on the front keeps its place and gives up the foreground."""
    base = chart_of(values).encode(x=x)
    faded = alt.condition("datum.best", alt.value(1), alt.value(0.5 if many else 1))
    thin = alt.condition("datum.best", alt.value(1), alt.value(0 if many else 1))
    dash = alt.condition(f"datum.series == '{FLOOR}'", alt.value([2, 3]), alt.value([1, 0]))
    lines = base.mark_line(opacity=0.15 if many else 0.55, aria=False)
    bars = base.mark_rule(strokeWidth=1.5, aria=False)
    return [
        lines.encode(y=y, stroke=literal("colour"), detail="series:N", strokeDash=dash),
        bars.encode(y=alt.Y("low:Q"), y2="high:Q", opacity=thin, stroke=literal("colour")),
        marked(base).encode(y=y, opacity=faded),
    ]
