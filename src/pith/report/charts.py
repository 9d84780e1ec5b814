"""The page's charts, as SVG that takes its colours from the page and asks nothing of the network."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from pith.report.row import Row
from pith.report.verdict import FLOOR
from pith.tasks import Task

SHAPES = {
    "circle": "M0,-1A1,1 0 1,1 0,1A1,1 0 1,1 0,-1Z",
    "square": "M-.9,-.9H.9V.9H-.9Z",
    "triangle": "M0,-1.1L1.1,.9H-1.1Z",
    "diamond": "M0,-1.25L1.25,0L0,1.25L-1.25,0Z",
    "down": "M0,1.1L1.1,-.9H-1.1Z",
    "plus": "M-.4,-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z",
    "hexagon": "M1.1,0L.55,.95H-.55L-1.1,0L-.55,-.95H.55Z",
}
"""Marks as SVG paths within about one unit of the origin; the page's legend draws the same."""

COLOURS = 8
"""The page's style sheet has so many colours, --series-0 and on; with the seven shapes, 56 series differ."""

FONT = "Arial, Helvetica, sans-serif"
"""Fonts of equal widths wherever the page opens, so that the room set aside for a label fits it."""

WIDTH = 400
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Style:
    """How a series looks everywhere on the page: a CSS colour and an SVG path."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Chart:
    """A chart as SVG, with the heading over it, the caption under it and the words for those who do not see it."""

    title: str
    caption: str
    alt: str
    svg: str


def styles(rows: Sequence[Row]) -> dict[str, Style]:
    """A style for each series, in order; the floor is always grey."""
    names = [name for name in dict.fromkeys(row.series for row in rows if not row.is_dense) if name != FLOOR]
    shapes = list(SHAPES.values())
    chosen = {
        name: Style(f"var(--series-{i % COLOURS})", shapes[i % len(shapes)]) for i, name in enumerate(names)
    }  # fmt: skip
    return chosen | ({FLOOR: Style("var(--floor)", SHAPES["plus"])} if any(row.series == FLOOR for row in rows) else {})


def quality_chart(rows: Sequence[Row], task: Task, title: str) -> Chart:
    """The task's score against the measured share of the cache, a line a series, the dense model as reference."""
    looks, dense = styles(rows), rows[0].quality(task)
    # a score without bounds, such as the perplexity of a model that broke, has no place on a scale
    found = [(row, q) for row in rows if math.isfinite((q := row.quality(task)).low + q.value + q.high)]
    lowest = min(row.share for row in rows) / 1.15
    wide = not task.higher_is_better and max(q.value for _, q in found) > 20 * min(q.value for _, q in found) > 0
    x_scale = alt.Scale(type="log", domain=[lowest, 1.08 * max(row.share for row in rows)], nice=False)
    ticks = alt.Axis(values=[t for t in TICKS if t >= lowest], format="~%", title="cache held, share of dense")
    x = alt.X("share:Q", scale=x_scale, axis=ticks)
    y = alt.Y("value:Q", scale=alt.Scale(type="log" if wide else "linear", zero=False), axis=alt.Axis(title=None))
    reference = _chart([{"value": dense.value, "low": dense.low, "high": dense.high}])
    layers = [
        reference.mark_rect(color="var(--text)", opacity=0.08).encode(y=alt.Y("low:Q"), y2="high:Q"),
        reference.mark_rule(color="var(--text)", strokeDash=[5, 4]).encode(y=y),
        reference.mark_text(text="dense", align="right", dy=-7, x="width", dx=-4, color="var(--text)").encode(y=y),
    ]
    for index, (series, look) in enumerate(looks.items()):
        values = [{"share": r.share, "value": q.value, "low": q.low, "high": q.high}
                  for r, q in found if r.series == series]  # fmt: skip
        # methods at one budget hold equal bytes: some pixels apart, none hides another
        aside = min(5, 24 / len(looks)) * (index - (len(looks) - 1) / 2)
        base = _chart(values).encode(x=x)
        layers += [
            base.mark_line(color=look.colour, opacity=0.55, xOffset=aside, **_dash(series)).encode(y=y),
            base.mark_rule(color=look.colour, strokeWidth=1.5, xOffset=aside).encode(y=alt.Y("low:Q"), y2="high:Q"),
            base.mark_point(shape=look.shape, xOffset=aside, **_filled(look)).encode(y=y),
        ]
    described = "; ".join(f"{r.label} {q.value:.3g} at {r.share:.0%}" for r, q in found)
    return Chart(
        title if title == task.metric else f"{title}: {task.metric}",
        f"{'Higher' if task.higher_is_better else 'Lower'} is better. Bars and the grey band are 95% intervals.",
        f"Score against the share of the cache that is held. {described}.",
        _svg(alt.layer(*layers), height=230),
    )


def time_chart(rows: Sequence[Row]) -> Chart:
    """Each recipe's decode time as a ratio to the dense model's, with its spread."""
    speeds = [(row, row.measurement.speed) for row in rows if not row.is_dense]
    values = [{"recipe": r.label, "value": s.decode_ratio, "low": s.decode_ratio * max(0.0, 1 - s.spread),
               "high": s.decode_ratio * (1 + s.spread)} for r, s in speeds]  # fmt: skip
    x = alt.X("value:Q", scale=alt.Scale(zero=False, padding=12), axis=alt.Axis(title="decode time, ratio to dense"))
    layers = [
        _chart([{"value": 1.0}]).mark_rule(color="var(--text)", strokeDash=[5, 4]).encode(x=x),
        *_whiskers(rows, values, x),
    ]
    return Chart(
        "Decode time",
        "Left of the dashed line is faster than the dense model. Bars reach as far as the farthest pair of runs.",
        "Decode time as a ratio to dense. " + "; ".join(f"{r.label} {s.decode_ratio:.2f}x" for r, s in speeds) + ".",
        _svg(alt.layer(*layers), height=45 + 22 * len(values)),
    )


def bytes_chart(rows: Sequence[Row]) -> Chart:
    """Each recipe's measured share of the dense cache beside the claimed one."""
    held = [(row, row.measurement.bytes) for row in rows if not row.is_dense]
    values = [{"recipe": r.label, "value": b.measured, "low": min(b.measured, b.claimed),
               "high": max(b.measured, b.claimed), "claimed": b.claimed} for r, b in held]  # fmt: skip
    top = max(1.0, *(max(b.measured, b.claimed) for _, b in held))
    axis = alt.Axis(title="share of the dense cache", format="~%")
    x = alt.X("value:Q", scale=alt.Scale(domain=[0, top]), axis=axis)
    claimed = _chart(values).mark_tick(color="var(--text)", thickness=2, size=15)
    layers = [*_whiskers(rows, values, x), claimed.encode(x=alt.X("claimed:Q"), y=_by_recipe(values))]
    return Chart(
        "Claimed against measured",
        "The upright stroke is what the method claims, the mark what its tensors hold. They should meet.",
        "Share of the dense cache. "
        + "; ".join(f"{r.label} claims {b.claimed:.1%}, holds {b.measured:.1%}" for r, b in held) + ".",
        _svg(alt.layer(*layers), height=45 + 22 * len(values)),
    )  # fmt: skip


def _whiskers(rows: Sequence[Row], values: list[dict[str, Any]], x: alt.X) -> list[alt.Chart]:
    """One mark and one bar from low to high for each recipe, in its series' style."""
    looks = styles(rows)
    of_series = {row.label: row.series for row in rows}
    layers = []
    for series, look in looks.items():
        base = _chart([v for v in values if of_series[v["recipe"]] == series]).encode(y=_by_recipe(values))
        layers.append(base.mark_rule(color=look.colour, strokeWidth=1.5).encode(x=alt.X("low:Q"), x2="high:Q"))
        layers.append(base.mark_point(shape=look.shape, **_filled(look)).encode(x=x))
    return layers


def _by_recipe(values: list[dict[str, Any]]) -> alt.Y:
    order = [v["recipe"] for v in values]
    return alt.Y("recipe:N", sort=order, scale=alt.Scale(domain=order), axis=alt.Axis(title=None, labelLimit=190))


def _chart(values: list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.Data(values=values))


def _filled(look: Style) -> dict[str, Any]:
    # size is an area: a custom path of unit radius is drawn with a radius of half its root
    return {"fill": look.colour, "stroke": "var(--surface)", "strokeWidth": 0.15, "size": 80, "opacity": 1}


def _dash(series: str) -> dict[str, Any]:
    return {"strokeDash": [2, 3]} if series == FLOOR else {}


def _svg(chart: alt.LayerChart, height: int) -> str:
    chart = chart.properties(width=WIDTH, height=height, autosize=alt.AutoSizeParams(type="fit", contains="padding"))
    quiet = alt.AxisConfig(
        labelColor="var(--muted)", titleColor="var(--muted)", gridColor="var(--line)", domainColor="var(--line)",
        tickColor="var(--line)", titleFontWeight="normal", titleFontSize=11, labelFontSize=11, tickCount=5,
    )  # fmt: skip
    chart = chart.configure(font=FONT, background="transparent", axis=quiet)
    chart = chart.configure_view(stroke=None).configure_text(fontSize=11)
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    # inside HTML the name spaces are known, and the size is the page's to choose
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg, count=1)
