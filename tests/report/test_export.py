from __future__ import annotations

import re
import struct
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

from pith.report import rows, table
from pith.report.export import SCALE, exports, latex, markdown, palette, standalone
from pith.report.figures import figures
from pith.report.table import Cell, Column, Table
from study.fakes import sought, study

STUDY = study("snapkv", "streaming_llm")
FIGURES = figures(STUDY, rows(STUDY), sought())


def test_every_chart_is_an_svg_of_its_own_and_a_png_of_its_size() -> None:
    found = exports(FIGURES.files(), table(STUDY))
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
    assert "needle_length=512_text=_a_b-bytes.svg" in exports([chart], table(STUDY))


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
