"""How the terminal shows tables and cards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from pith.core import Parameter, Parametrised, written
from pith.report import Table, reading, table, verdict
from pith.study import Study

ROOMY = 120
"""A terminal of so many columns shows a cell's detail beside it; a narrower one below it."""


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
            ("parameter", "default", "allowed", "what it is"),
            [(p.name, written(p.default), p.allowed, p.doc) for p in parameters],
        )


def print_study(study: Study, page: Path) -> None:
    """The comparison's table and verdict on stdout, how to read it, and where the page is."""
    console = Console(highlight=False)
    console.print(rich_table(table(study), console.width))
    for sentence in verdict(study):
        console.print(Text(sentence.replace("`", "")))
    console.print(Text(f"{reading(study)} Charts: {page}", style="dim"))


def rich_table(results: Table, width: int, last: int | None = None) -> RichTable:
    """The table for a terminal.

    Args:
        results: the table.
        width: the terminal's columns.
        last: how many rows there is room for; the dense model and the last ones are shown.
    """
    narrow = width < ROOMY
    joint = "\n" if narrow else "  "
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(results.columns):
        title = Text(column.title.replace(" ", "\n") if narrow else column.title)
        # where room is short it is the recipe that folds, never a number
        shown.add_column(title, justify="right" if index else "left", no_wrap=index > 0, overflow="fold")
    rows = results.rows if last is None else (results.rows[0], *results.rows[1:][-last:])
    for row in rows:
        cells = [
            Text(cell.text, style="red" if cell.warns else "").append(joint + cell.detail, "dim") for cell in row[1:]
        ]
        shown.add_row(Text(row[0].text.replace("(", "\n(") if narrow else row[0].text), *cells)
    return shown


def parameters_json(parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Parameters as plain data; a default that is a method is its text."""
    return [
        {
            "name": p.name,
            "kind": p.kind,
            "default": str(p.default) if isinstance(p.default, Parametrised) else p.default,
            "allowed": p.allowed,
            "doc": p.doc,
        }
        for p in parameters
    ]
