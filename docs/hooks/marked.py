"""Markdown from plain data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """A table; the last `numbers` columns are set to the right.

    >>> print(table(["a", "b"], [["x|y", "1"]], numbers=1))
    | a | b |
    | --- | ---: |
    | x\\|y | 1 |
    """
    rule = ["---"] * (len(heads) - numbers) + ["---:"] * numbers
    lines = [heads, rule, *([cell(c) for c in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """A text that may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def block(text: str, language: str = "text") -> str:
    """A block of text as it is."""
    return f"```{language}\n{text}\n```"


def plain(text: str) -> str:
    """A text out of which Markdown and HTML must make nothing: underscores, stars and angle brackets stand as they are.

    >>> plain("a_b <c> `d_e`")
    'a\\\\_b &lt;c> `d_e`'
    """
    pieces = text.split("`")
    outside = [p.replace("<", "&lt;").replace("_", "\\_").replace("*", "\\*") for p in pieces[::2]]
    inside = [f"`{p}`" for p in pieces[1::2]]
    return "".join(a + b for a, b in zip(outside, [*inside, ""], strict=True))
