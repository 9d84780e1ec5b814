"""How the terminal shows tables and cards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from pith.core import Parameter, Parametrised, written
from pith.report import Cell, Table, reading, table, verdict
from pith.study import Study

ROOMY = 120
"""A terminal of so many columns shows a cell's detail beside it; a narrower one below it."""

LABEL = 20
"""So many columns of a narrow terminal a recipe may always take."""

GAP, EDGES = 3, 2
"""What stands between two columns of a table, and at its two sides."""


def print_json(value: Any) -> None:
    """Plain data as JSON on stdout, with nothing else."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_listing(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of words on stdout; of a text in parts, the first."""
    listing = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        listing.add_column(heading, no_wrap=index == 0, overflow="fold")
    for row in rows:
        listing.add_row(*(Text(" ".join(text.partition("\n\n")[0].split())) for text in row))
    Console().print(listing)


def print_card(title: str, parts: Sequence[tuple[str, str]], parameters: Sequence[Parameter]) -> None:
    """What is known of one method or task: its parts, as lines that stay whole, then its parameters."""
    console = Console(highlight=False)
    console.print(Text(title, style="bold"))
    for heading, text in parts:
        if text:
            console.print()
            console.print(Text(heading, style="bold dim"))
            console.print(Text(text), soft_wrap=True)
    if parameters:
        print_listing(
            ("parameter", "default", "allowed", "searched", "what it is"),
            [(p.name, written(p.default), p.allowed, _searched(p), p.doc) for p in parameters],
        )


def _searched(parameter: Parameter) -> str:
    """The values that a search tries, from the one that saves most to the one that saves least."""
    joint = " to " if parameter.is_range else ", "
    return joint.join(map(written, parameter.sweep))


def print_study(study: Study, page: Path) -> None:
    """The comparison's table and verdict on stdout, how to read it, and where the page is."""
    console = Console(highlight=False)
    console.print(rich_table(table(study), console.width))
    for sentence in verdict(study):
        console.print(Text(sentence.replace("`", "")))
    console.print(Text(f"{reading(study)} Charts: {page}", style="dim"))


def rich_table(results: Table, width: int, last: int | None = None) -> RichTable:
    """The table for a terminal; where it has too many columns for one, without the spare ones, or in several parts.

    Args:
        results: the table.
        width: the terminal's columns.
        last: how many rows there is room for; the dense model and the last ones are shown.
    """
    rows = results.rows if last is None else (results.rows[0], *results.rows[1:][-last:])
    # details beside, then below; each with the columns that can be spared, then without
    for narrow, whole in ((False, True), (False, False), (True, True), (True, False)):
        shown = _texts(results, rows, narrow)
        if not whole:
            shown = [column for column, kind in zip(shown, results.columns, strict=True) if not kind.spare]
        chunks = _chunks(shown, width)
        if len(chunks) == 1 and (narrow or width >= ROOMY):
            break
    tables = [_part([shown[0], *chunk]) for chunk in chunks]
    if len(tables) == 1:
        return tables[0]
    parts = RichTable.grid()
    for one in tables:
        parts.add_row(one)
    return parts


def _texts(results: Table, rows: Sequence[Sequence[Cell]], narrow: bool) -> list[list[Text]]:
    """Each column as texts, the heading first; in a narrow terminal details stand below."""
    joint = "\n" if narrow else "  "
    titles = [c.title.replace(" ", "\n").replace("(", "\n(") if narrow else c.title for c in results.columns]
    labels = [row[0].text.replace("(", "\n(") if narrow else row[0].text for row in rows]
    columns = [[Text(titles[0]), *map(Text, labels)]]
    for index, title in enumerate(titles[1:], start=1):
        cells = [row[index] for row in rows]
        texts = [Text(c.text, style="red" if c.warns else "").append(joint + c.detail, "dim") for c in cells]
        columns.append([Text(title), *texts])
    return columns


def _chunks(columns: list[list[Text]], width: int) -> list[list[list[Text]]]:
    """The columns after the first, in as many parts as it takes for each to fit beside the first."""
    first, *sizes = [max(cell_len(line) for text in column for line in text.plain.split("\n")) for column in columns]
    room = width - min(first, LABEL) - EDGES  # the first column folds where it must
    chunks: list[list[list[Text]]] = [[]]
    left = room
    for column, size in zip(columns[1:], sizes, strict=True):
        if size + GAP > left and chunks[-1]:
            chunks.append([])
            left = room
        chunks[-1].append(column)
        left -= size + GAP
    if len(chunks) > 1 and len(chunks[-1]) == 1 < len(chunks[-2]) - 1:
        chunks[-1].insert(0, chunks[-2].pop())  # no column stands alone
    return chunks


def _part(columns: list[list[Text]]) -> RichTable:
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        # where room is short it is the recipe that folds, never a number
        shown.add_column(column[0], justify="right" if index else "left", no_wrap=index > 0, overflow="fold")
    for line in zip(*(column[1:] for column in columns), strict=True):
        shown.add_row(*line)
    return shown


def parameters_json(parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Parameters as plain data; a default that is a method is its text."""
    return [
        {
            "name": p.name,
            "kind": p.kind,
            "default": str(p.default) if isinstance(p.default, Parametrised) else p.default,
            "allowed": p.allowed,
            "sweep": list(p.sweep),
            "doc": p.doc,
        }
        for p in parameters
    ]
