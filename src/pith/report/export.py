"""The charts as SVG and PNG, and the table as Markdown and LaTeX, for papers."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files

import vl_convert

from pith.core.errors import PithWarning
from pith.report.charts import Chart
from pith.report.table import Cell, Table

SCALE = 3
"""Pixels of a PNG for each unit of the drawing: 400 units across a column of 8.5 cm are 360 dots an inch."""

STEM = 80
"""Bytes of a chart's file name, at most, without its suffix."""

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


def exports(charts: Iterable[Chart], table: Table) -> Iterator[tuple[str, bytes]]:
    """Yield every file as its name and content: the table twice, then each chart twice.

    A chart that cannot be made into a file is left out, with a warning that says why.
    """
    yield "table.md", markdown(table).encode(errors="replace")
    yield "table.tex", latex(table).encode(errors="replace")
    drawings = list(charts)
    for chart, name in zip(drawings, file_names([chart.name for chart in drawings]), strict=True):
        try:
            svg = standalone(chart)
            made = {f"{name}.svg": svg.encode(), f"{name}.png": vl_convert.svg_to_png(svg, scale=SCALE)}
        except Exception as error:  # the renderer may fail in any way, and the other charts do not depend on this one
            why = (str(error).strip().splitlines() or [""])[0][:100]
            warnings.warn(f"the chart {name} was not written: {type(error).__name__}: {why}", PithWarning, stacklevel=2)
            continue
        yield from made.items()


def file_names(names: Sequence[str]) -> list[str]:
    """Return a file name without suffix for each chart's name.

    A name of more than 80 bytes is cut, and one that another chart of these would share (where upper and lower case
    count as alike) is kept apart: both get eight hexadecimal digits that depend on the chart's own name only.
    """
    stems = [re.sub(r"[^\w.=-]+", "_", name).replace("_-", "-").strip("_") for name in names]
    uses = Counter(stem.lower() for stem in stems)
    return [
        stem if len(stem.encode()) <= STEM and uses[stem.lower()] == 1 else _short(stem, name)
        for stem, name in zip(stems, names, strict=True)
    ]


def _short(stem: str, name: str) -> str:
    mark = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{stem.encode()[: STEM - len(mark) - 1].decode(errors='ignore')}-{mark}"


def markdown(table: Table) -> str:
    """Return the table as Markdown; names and recipes are text in it, whatever they hold."""
    head = [_escaped_markdown(_column(c.title, c.detail)) for c in table.columns]
    lines = [head, ["---", *("---:" for _ in head[1:])]]
    lines += [[_code(row[0].text), *(_escaped_markdown(_said(cell)) for cell in row[1:])] for row in table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _code(text: str) -> str:
    """Return a recipe as a code span; where a character of it could end or cross one, as escaped text."""
    return _escaped_markdown(text) if re.search(r"[`<>&|\\\r\n]", text) else f"`{text}`"


def _escaped_markdown(text: str) -> str:
    """Return text that Markdown shows as it is: neither markup, nor HTML, nor the end of a table's cell."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # an underscore within a word is not markup
    return re.sub(r"[\\`*\[\]|]|(?<![^\W_])_|_(?![^\W_])", lambda one: f"\\{one[0]}", line)


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
