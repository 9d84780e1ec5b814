"""What a search tried: memory against quality, with the limits."""

from __future__ import annotations

from typing import Any

import altair as alt

from pith.report.charts.base import JOINT, SHAPES, Chart, chart_of, drawn
from pith.report.front import front
from pith.report.words import bytes_, digits, percent
from pith.search.sought import Reached, Sought, Tried

MIB = 1 << 20


def search_chart(sought: Sought) -> Chart | None:
    """Every recipe whose memory and quality are known; None where there is none."""
    tried = [t for t in sought.tried if t.memory is not None and t.quality is not None]
    if not tried:
        return None
    values = [_value(t, sought) for t in tried]
    ends = [v["memory"] for v in values] + [m / MIB for m in (sought.memory, sought.dense_memory) if m]
    x = alt.X("memory:Q", scale=alt.Scale(domain=_padded(ends), nice=False),
              axis=alt.Axis(title="weights and cache, MiB", format="~g"))  # fmt: skip
    levels = [v["quality"] for v in values] + [sought.quality, 1.0]
    y = alt.Y("quality:Q", scale=alt.Scale(domain=_padded(levels), nice=False),
              axis=alt.Axis(title=None, format="~%"))  # fmt: skip
    done = [v for v in values if v["kind"] != "early"]
    best = [done[i] for i in front([(v["memory"], -v["quality"]) for v in done])]
    best.sort(key=lambda v: float(v["memory"]))
    line = chart_of(best).mark_line(color="var(--accent)", strokeWidth=9, opacity=0.22, strokeCap="round",
                                    strokeJoin="round", aria=False)  # fmt: skip
    layers = [*_limits(sought, _padded(ends), _padded(levels), x, y), line.encode(x=x, y=y)]
    looks = {
        "tried": {"shape": "circle", "fill": "var(--floor)", "opacity": 0.55, "size": 45},
        "early": {"shape": "circle", "fill": "var(--surface)", "stroke": "var(--floor)", "size": 40},
        "front": {"shape": "circle", "fill": "var(--series-0)", "opacity": 1, "size": 70},
        "found": {"shape": SHAPES["diamond"], "fill": "var(--series-1)", "opacity": 1, "size": 170},
    }
    for kind, look in looks.items():
        points = chart_of([v for v in values if v["kind"] == kind]).mark_point(**{"stroke": "var(--surface)", **look})
        layers.append(points.encode(x=x, y=y, description="said:N"))
    again = " as measured afresh" if sought.reached else ""
    hidden = len(sought.tried) - len(tried)
    rest = f" {hidden} more were given up before their quality was known." if hidden else ""
    return Chart(
        "search",
        "What was tried",
        "Quality is the lowest share of the dense model's score that is kept; the tinted corner meets the limits. "
        f"Diamond: the recipe found, or the nearest{again}; blue: not beaten in memory, quality and time; band: "
        f"not beaten in the two drawn here; hollow: given up early, on few examples.{rest}",
        "Memory against quality. " + "; ".join(v["said"] for v in values) + ".",
        drawn(alt.layer(*layers), height=320, width=640),
    )


def _value(tried: Tried, sought: Sought) -> dict[str, Any]:
    assert tried.memory is not None
    assert tried.quality is not None
    best = tried.recipe == (sought.found or sought.nearest)
    kind = "found" if best else "early" if tried.given_up else "front" if tried.on_front else "tried"
    shown = sought.reached if best and sought.reached else Reached(tried.memory, tried.quality, tried.latency or 0.0)
    said = f"{percent(shown.quality)} of the quality in {bytes_(shown.memory)}"
    said += f", {digits(shown.latency)}x the time" if shown.latency else ""
    return {
        "memory": shown.memory / MIB,
        "quality": shown.quality,
        "kind": kind,
        "said": f"{tried.recipe}{JOINT}{said}",
    }


def _padded(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return [low - room, high + room]


def _limits(sought: Sought, xs: list[float], ys: list[float], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """The corner that meets the limits, a line for each limit, and the dense model's place."""
    right = sought.memory / MIB if sought.memory else xs[1]
    corner = {"memory": xs[0], "right": right, "quality": sought.quality, "top": ys[1]}
    base = chart_of([corner])
    dense = chart_of([{"memory": sought.dense_memory / MIB, "quality": 1.0, "said": "dense"}])
    limits = [base.mark_rule(color="var(--accent)", strokeDash=[5, 4], aria=False).encode(y=y)]
    if sought.memory:
        limits.append(base.mark_rule(color="var(--accent)", strokeDash=[5, 4], aria=False).encode(
            x=alt.X("right:Q")))  # fmt: skip
    return [
        base.mark_rect(color="var(--accent)", opacity=0.1, aria=False).encode(x=x, x2="right:Q", y=y, y2="top:Q"),
        *limits,
        dense.mark_point(shape=SHAPES["plus"], fill="var(--text)", stroke="var(--surface)", size=80, opacity=1).encode(
            x=x, y=y, description="said:N"),
        dense.mark_text(text="dense", dy=-11, color="var(--text)", aria=False).encode(x=x, y=y),
    ]  # fmt: skip
