"""What all charts share: the look of a series, and the way to SVG."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from pith.report.row import Row
from pith.report.verdict import FLOOR

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
MANY = 16
"""With more recipes than this, marks that are not on the front step back."""

JOINT = " · "
"""Between a mark's recipe and what is said of it."""

_MARK = re.compile(r'<path aria-label="([^"]*)"([^>]*)/>')
_SPOKEN = re.compile(r' (?:role|aria-[a-z]+)="[^"]*"')
_EMPTY = re.compile(r'<path class="(?:back|fore)ground"[^>]*/>| (?:pointer-events="none"|opacity="1")')
_LONG = re.compile(r'(?<= d=")[^"]*|(?<= transform=")[^"]*')


@dataclass(frozen=True)
class Style:
    """How a series looks everywhere on the page: a CSS colour and an SVG path."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Chart:
    """A chart as SVG.

    Attributes:
        name: what its file is called.
        title, caption: the heading over it and the words under it.
        alt: the words for those who do not see it.
        svg: the drawing; its colours are the page's.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: str


def styles(rows: Sequence[Row]) -> dict[str, Style]:
    """A style for each series, in order; the floor is always grey."""
    names = [name for name in dict.fromkeys(row.series for row in rows if not row.is_dense) if name != FLOOR]
    shapes = list(SHAPES.values())
    found = {name: Style(f"var(--series-{i % COLOURS})", shapes[i % len(shapes)]) for i, name in enumerate(names)}
    return found | ({FLOOR: Style("var(--floor)", SHAPES["plus"])} if any(row.series == FLOOR for row in rows) else {})


def chosen(rows: Sequence[Row], most: int, first: Row | None = None) -> list[Row]:
    """At most so many rows where there is no room for all: the dense model's, the one to show first, then in order."""
    wanted = [row for row in (rows[0], first) if row is not None]
    return [*wanted, *(row for row in rows if row not in wanted)][:most]


def ratios(values: Sequence[float], title: str) -> dict[str, Any]:
    """Scale and axis for ratios to the dense model: logarithmic where they reach over more than a factor of six."""
    low, high = min(values), max(values)
    if high <= 6 * low:
        return {"scale": alt.Scale(zero=False, padding=14), "axis": alt.Axis(title=title, format="~g")}
    ends = [low / 1.25, high * 1.25]
    ticks = [t for t in (a * b for b in (0.001, 0.01, 0.1, 1, 10, 100) for a in (1, 2, 5)) if ends[0] <= t <= ends[1]]
    return {
        "scale": alt.Scale(type="log", domain=ends, nice=False),
        "axis": alt.Axis(title=title, format="~g", values=ticks),
    }


def chart_of(values: list[dict[str, Any]]) -> alt.Chart:
    """A chart that holds its data."""
    return alt.Chart(alt.Data(values=values))


def looked(look: Style) -> dict[str, str]:
    """A style as part of a value, which `marked` and literal channels draw."""
    return {"colour": look.colour, "shape": look.shape}


def literal(field: str) -> dict[str, Any]:
    """A channel whose values are drawn as they are: colours and paths."""
    return {"field": field, "type": "nominal", "scale": None, "legend": None}


def marked(base: alt.Chart) -> alt.Chart:
    """Points in their series' styles, with a thin line of the ground around them."""
    # size is an area: a custom path of unit radius is drawn with a radius of half its root
    points = base.mark_point(stroke="var(--surface)", strokeWidth=0.15, size=80, opacity=1, filled=True)
    return points.encode(fill=literal("colour"), shape=literal("shape"), description="said:N")


def spec(chart: alt.TopLevelMixin, height: int | None = None, width: int = WIDTH) -> dict[str, Any]:
    """The chart as Vega-Lite: fonts and quiet lines; with a height, a size for all of it."""
    if height is not None:
        fit = alt.AutoSizeParams(type="fit", contains="padding")
        chart = chart.properties(width=width, height=height, autosize=fit)
    quiet = alt.AxisConfig(
        labelColor="var(--muted)", titleColor="var(--muted)", gridColor="var(--line)", domainColor="var(--line)",
        tickColor="var(--line)", titleFontWeight="normal", titleFontSize=11, labelFontSize=11, tickCount=5,
    )  # fmt: skip
    legend = alt.LegendConfig(labelColor="var(--text)", labelFontSize=11, labelLimit=340, title=None, symbolSize=120)
    head = alt.HeaderConfig(labelColor="var(--text)", labelFontSize=11, labelLimit=190, title=None)
    chart = chart.configure(font=FONT, background="transparent", axis=quiet, legend=legend, header=head)
    found: dict[str, Any] = chart.configure_view(stroke=None).configure_text(fontSize=11).to_dict(validate=False)
    return found


def svg_of(spec: dict[str, Any]) -> str:
    """A drawing: its colours are the page's, and what is said of each mark is its title."""
    svg: str = vl_convert.vegalite_to_svg(spec)
    svg = _EMPTY.sub("", _SPOKEN.sub("", _MARK.sub(_titled, svg)))
    svg = _LONG.sub(lambda long: re.sub(r"\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}", long[0]), svg)
    # inside HTML the name spaces are known, and the size is the page's to choose
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg, count=1)


def drawn(chart: alt.TopLevelMixin, height: int, width: int = WIDTH) -> str:
    """The chart as SVG."""
    return svg_of(spec(chart, height, width))


def _titled(mark: re.Match[str]) -> str:
    said, rest = mark.groups()
    row, joint, _ = said.partition(JOINT)
    return f"<path{f' data-row={chr(34)}{row}{chr(34)}' if joint else ''}{rest}><title>{said}</title></path>"
