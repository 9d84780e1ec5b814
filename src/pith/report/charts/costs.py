"""What recipes cost: their times, and their bytes as claimed and as measured."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any

import altair as alt

from pith.report.charts.base import JOINT, Chart, chart_of, drawn, literal, looked, marked, ratios, styles
from pith.report.row import Row
from pith.report.words import bytes_, percent, seconds

MIB = 1 << 20
LABEL = 32
"""Letters in a line of a recipe's label; a longer one takes several lines."""


def time_chart(rows: Sequence[Row]) -> Chart:
    """Each recipe's decode time as a ratio to the dense model's, with its spread."""
    speeds = [(row, speed) for row in rows if not row.is_dense and (speed := row.measurement.speed)]
    looks = styles(rows)
    values: list[dict[str, Any]] = [
        {
            "recipe": r.label,
            "value": s.decode_ratio,
            "low": s.decode_ratio * max(0.05, 1 - s.spread),
            "high": s.decode_ratio * (1 + s.spread),
            "said": f"{r.label}{JOINT}{s.decode_ratio:.2f}x, {seconds(s.decode)} a token",
            **looked(looks[r.series]),
        }
        for r, s in speeds
    ]
    ends = [1.0, *(v[end] for v in values for end in ("low", "high"))]
    x = alt.X("value:Q", **ratios(ends, "decode time, ratio to dense"))
    layers = [
        chart_of([{"value": 1.0}]).mark_rule(color="var(--text)", strokeDash=[5, 4], aria=False).encode(x=x),
        *_whiskers(values, x),
    ]
    return Chart(
        "decode-time",
        "Decode time",
        "Left of the dashed line is faster than the dense model. Bars are 95% intervals of the median of the runs.",
        "Decode time as a ratio to dense. " + "; ".join(f"{r.label} {s.decode_ratio:.2f}x" for r, s in speeds) + ".",
        drawn(alt.layer(*layers), height=_height(values)),
    )


def bytes_chart(rows: Sequence[Row]) -> Chart:
    """Each recipe's measured share of the dense cache beside the claimed one."""
    held, looks = [(row, row.measurement.bytes) for row in rows if not row.is_dense], styles(rows)
    values = [
        {
            "recipe": r.label,
            "value": b.measured,
            "low": min(b.measured, b.claimed),
            "high": max(b.measured, b.claimed),
            "claimed": b.claimed,
            "said": f"{r.label}{JOINT}claims {percent(b.claimed)}, holds {percent(b.measured)}",
            **looked(looks[r.series]),
        }
        for r, b in held
    ]
    top = max(1.0, *(max(b.measured, b.claimed) for _, b in held))
    axis = alt.Axis(title="share of the dense cache", format="~%")
    x = alt.X("value:Q", scale=alt.Scale(domain=[0, top]), axis=axis)
    claimed = chart_of(values).mark_tick(color="var(--text)", thickness=2, size=15, aria=False)
    layers = [*_whiskers(values, x), claimed.encode(x=alt.X("claimed:Q"), y=_by_recipe(values))]
    return Chart(
        "claimed-measured",
        "Claimed against measured",
        "The upright stroke is what the method claims, the mark what its tensors hold. They should meet.",
        "Share of the dense cache. "
        + "; ".join(f"{r.label} claims {b.claimed:.1%}, holds {b.measured:.1%}" for r, b in held) + ".",
        drawn(alt.layer(*layers), height=_height(values)),
    )  # fmt: skip


def memory_chart(rows: Sequence[Row]) -> Chart:
    """The bytes of each recipe's weights, and of its cache behind them, beside the dense model's."""
    values: list[dict[str, Any]] = []
    for row in rows:
        weights, cache = row.measurement.costs.memory.weights, row.measurement.bytes.prefill
        for part, low, high in (("weights", 0, weights), ("cache", weights, weights + cache)):
            said = f"{row.label}{JOINT}{part} hold{'s' * (part == 'cache')} {bytes_(high - low)}"
            colour = "var(--accent)" if part == "weights" else "var(--floor)"
            values.append({"recipe": row.label, "low": low / MIB, "high": high / MIB, "said": said, "colour": colour})
    base = chart_of(values).encode(y=_by_recipe(values))
    x = alt.X("low:Q", scale=alt.Scale(zero=True), axis=alt.Axis(title="MiB", format="~g"))
    bars = base.mark_bar(height=12).encode(x=x, x2="high:Q", fill=literal("colour"), description="said:N")
    return Chart(
        "weights-cache",
        "Weights and cache",
        "Coloured: what the weights hold after a forward; grey: what the cache of one sequence holds after the prompt.",
        "Bytes. " + "; ".join(v["said"] for v in values) + ".",
        drawn(alt.layer(bars), height=_height(values[::2])),
    )


def _whiskers(values: list[dict[str, Any]], x: alt.X) -> list[alt.Chart]:
    """One mark and one bar from low to high for each recipe, in its series' style."""
    base = chart_of(values).encode(y=_by_recipe(values))
    bars = base.mark_rule(strokeWidth=1.5, aria=False)
    return [bars.encode(x=alt.X("low:Q"), x2="high:Q", stroke=literal("colour")), marked(base).encode(x=x)]


def _lines(label: str) -> list[str]:
    return textwrap.wrap(label, LABEL)


def _height(values: list[dict[str, Any]]) -> int:
    most = max(len(_lines(v["recipe"])) for v in values)
    return 45 + max(22, 14 * most + 6) * len(values)


def _by_recipe(values: list[dict[str, Any]]) -> alt.Y:
    order = list(dict.fromkeys(v["recipe"] for v in values))
    lines = json.dumps({label: _lines(label) for label in order})
    axis = alt.Axis(title=None, labelLimit=200, labelExpr=f"({lines})[datum.label]")
    return alt.Y("recipe:N", sort=order, scale=alt.Scale(domain=order), axis=axis)
