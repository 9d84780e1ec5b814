"""Ordinary English prose, written for Pith: paragraphs about everyday things, crafts, nature and history."""

from functools import cache
from importlib.resources import files


@cache
def prose_text() -> str:
    """Return the prose as one text, a paragraph on each line (35 thousand characters, ASCII, without digits).

    It was written for this project and is part of it, so no model can have seen it before the project was published.
    """
    return files("pith.tasks").joinpath("prose.txt").read_text(encoding="utf-8")
