from __future__ import annotations

import re
import struct
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from pith.core import PithWarning, Recipe
from pith.report import rows, table
from pith.report.export import SCALE, STEM, exports, file_names, latex, markdown, palette, standalone
from pith.report.figures import figures
from pith.report.table import Cell, Column, Table
from study.fakes import sought, study

STUDY = study("snapkv", "streaming_llm")
FIGURES = figures(STUDY, rows(STUDY), sought())


def test_every_chart_is_an_svg_of_its_own_and_a_png_of_its_size() -> None:
    found = dict(exports(FIGURES.files(), table(STUDY)))
    drawings = {name: content for name, content in found.items() if name.endswith(".svg")}
    assert {"search.svg", "needle-bytes.svg", "needle-depth.svg", "decode-time.svg"} <= set(drawings)
    for name, content in drawings.items():
        root = ElementTree.fromstring(content)
        assert "var(" not in content.decode()
        assert root[0].get("fill") == "#ffffff", "on white"
        png = found[name.replace(".svg", ".png")]
        assert png.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", png[16:24])
        size = tuple(round(float(root.get(side) or 0) * SCALE) for side in ("width", "height"))
        assert abs(width - size[0]) <= 2
        assert abs(height - size[1]) <= 2


def test_the_colours_are_the_pages_in_the_light() -> None:
    colours = palette()
    assert colours["surface"] == "#ffffff"
    assert {f"series-{i}" for i in range(8)} | {f"heat-{i}" for i in range(6)} <= set(colours)
    chart = FIGURES.costs[0]
    assert colours["series-0"] in standalone(chart)


def test_a_name_that_is_no_file_name_is_made_one() -> None:
    chart = replace(FIGURES.costs[0], name="needle(length=512, text='a/b')-bytes")
    assert "needle_length=512_text=_a_b-bytes.svg" in dict(exports([chart], table(STUDY)))


def test_the_table_as_markdown_has_every_cell() -> None:
    lines = markdown(table(STUDY)).splitlines()
    assert len(lines) == 2 + 5
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(table(STUDY).columns) + 1}
    assert lines[3].startswith("| `snapkv(budget=0.5)` | 0.940 (0.875\u20130.972) |")
    assert "0.300 ▼" in lines[5]


def test_the_table_as_latex_is_escaped_and_has_every_cell() -> None:
    text = latex(table(STUDY))
    assert text.count("&") == (len(table(STUDY).columns) - 1) * (1 + 5)
    assert r"\texttt{streaming\_llm(budget=0.5)}" in text
    assert r"0.300 $\blacktriangledown$ (0.219--0.396)" in text
    assert r"512 KiB, 50.0\% (50.0\%)" in text
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert body.count(r"\toprule") == body.count(r"\bottomrule") == 1
    assert not re.findall(r"(?<!\\)[%_#]", body)


def test_whatever_a_recipe_holds_is_text_in_latex() -> None:
    evil = Table((Column("recipe"),), ((Cell(r"a\b{c}_~^&%$#|<>"),),))
    line = next(line for line in latex(evil).splitlines() if line.startswith(r"\texttt"))
    assert line == (
        r"\texttt{a\textbackslash{}b\{c\}\_\textasciitilde{}\textasciicircum{}\&\%\$\#\textbar{}\textless{}"
        r"\textgreater{}} \\"
    )


def test_file_names_are_short_and_every_chart_has_its_own() -> None:
    long = [f"perplexity(text='{folder * 120}/{'e' * 120}/text.txt')-bytes" for folder in "cd"]
    alike = ["perplexity(text='a/b.txt')-bytes", "perplexity(text='a_b.txt')-bytes", "Perplexity(text='A_b.txt')-bytes"]
    names = file_names(["decode-time", *long, *alike])
    assert names[0] == "decode-time"
    assert len({name.lower() for name in names}) == 6
    assert all(len(name.encode()) <= STEM and re.fullmatch(r"[\w.=-]+", name) for name in names)
    assert file_names(long[::-1]) == names[2:0:-1], "a cut name depends on the chart alone"
    letters = file_names(["\u00e9" * 200, "\U0001d504" * 200 + "\udcff"])
    assert all(0 < len(name.encode()) <= STEM for name in letters)


def test_a_chart_that_cannot_be_made_into_a_file_leaves_the_others() -> None:
    broken = replace(FIGURES.costs[0], name="broken", svg="<svg>no size</svg>")
    with pytest.warns(PithWarning, match="the chart broken was not written: AssertionError: a drawing says its size"):
        found = dict(exports([broken, FIGURES.costs[1]], table(STUDY)))
    assert set(found) == {"table.md", "table.tex", "claimed-measured.svg", "claimed-measured.png"}


class Read(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "evil",
    ["`<img src=x onerror=alert(1)>`", "<script>alert(1)</script>", "a|b", "``` <b>", "&lt;b&gt;", "[x](javascript:1)"],
)
def test_whatever_a_recipe_or_a_heading_holds_is_text_in_markdown(evil: str) -> None:
    recipe = str(Recipe.parse(f"rtn(bits=4, skip={evil!r})"))
    columns = (Column("recipe"), Column(f"perplexity(text={evil!r})", f"{evil}"))
    lines = markdown(Table(columns, ((Cell("dense"), Cell("1")), (Cell(recipe), Cell("1", evil))))).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}, "no cell ends early"
    # a reader that knows no code span sees no tag either, and one that undoes the escapes sees the text
    page = Read("\n".join(lines).replace("`", ""))
    assert page.tags == []
    shown = re.sub(r"\\([\\`*_\[\]|])", r"\1", Read(lines[3]).text)
    assert shown.replace("`", "").count(evil.replace("`", "")) == 2
    assert not re.search(r"(?<!\\)\]\(", re.sub(r"`[^`]*`", "", "".join(lines))), "no link outside of a code span"
