"""The charts as SVG and PNG, and the table as Markdown and LaTeX, for papers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files

import vl_convert

from pith.report.charts import Chart
from pith.report.table import Cell, Table

SCALE = 3
"""Pixels of a PNG for each unit of the drawing: 400 units across a column of 8.5 cm are 360 dots an inch."""

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "▼": r"$\blacktriangledown$", "▲": r"$\blacktriangle$",
    "\u2013": "--", "\u2212": "$-$", "\u00d7": r"$\times$", "µ": r"\textmu{}", "<": r"\textless{}",
    ">": r"\textgreater{}", '"': r"\textquotedbl{}", "|": r"\textbar{}",
}  # fmt: skip


def palette() -> dict[str, str]:
    """The page's colours by their names, in its light dress."""
    style = files("pith.report").joinpath("page.css").read_text(encoding="utf-8")
    light = re.search(r":root \{(.*?)\}", style, flags=re.DOTALL)
    assert light, "page.css begins with the light colours"
    return dict(re.findall(r"--([\w-]+): (#\w+)", light[1]))


def standalone(chart: Chart) -> str:
    """The chart as an SVG file of its own: real colours on white, and a size."""
    colours = palette()
    svg = re.sub(r"var\(--([\w-]+)\)", lambda name: colours[name[1]], chart.svg)
    size = re.match(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)">', svg)
    assert size, "a drawing says its size"
    width, height = size.groups()
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<rect width="{width}" height="{height}" fill="{colours["surface"]}"/>'
    )
    return opening + svg[size.end() :]


def exports(charts: Iterable[Chart], table: Table) -> dict[str, bytes]:
    """Every file by its name: each chart twice, and the table twice."""
    found: dict[str, bytes] = {}
    for chart in charts:
        name = re.sub(r"[^\w.=-]+", "_", chart.name).replace("_-", "-").strip("_")
        svg = standalone(chart)
        found[f"{name}.svg"] = svg.encode()
        found[f"{name}.png"] = vl_convert.svg_to_png(svg, scale=SCALE)
    return found | {"table.md": markdown(table).encode(), "table.tex": latex(table).encode()}


def markdown(table: Table) -> str:
    """The table as Markdown."""
    head = [_column(c.title, c.detail) for c in table.columns]
    lines = [head, ["---", *("---:" for _ in head[1:])]]
    lines += [[f"`{row[0].text}`", *map(_said, row[1:])] for row in table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines) + "\n"


def latex(table: Table) -> str:
    r"""The table as LaTeX; it wants the packages booktabs and amssymb."""
    head = " & ".join(_escaped(column.title) for column in table.columns)
    body = [
        " & ".join([rf"\texttt{{{_escaped(row[0].text)}}}", *(_escaped(_said(cell)) for cell in row[1:])]) + r" \\"
        for row in table.rows
    ]
    dense, others = body[:1], body[1:]
    notes = [f"% {_column(c.title, c.detail)}" for c in table.columns if c.detail]
    lines = [
        r"% \usepackage{booktabs,amssymb,textcomp}", *notes, rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule", head + r" \\", r"\midrule", *dense, *([r"\midrule"] if others else []), *others, r"\bottomrule",
        r"\end{tabular}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _column(title: str, detail: str) -> str:
    return f"{title} ({detail})" if detail else title


def _said(cell: Cell) -> str:
    if "(" in cell.detail:
        return f"{cell.text}, {cell.detail}"
    return f"{cell.text} ({cell.detail})" if cell.detail else cell.text


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
