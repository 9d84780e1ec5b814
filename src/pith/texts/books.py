"""Ordinary English prose out of two books in the public domain, a paragraph on each line, without headings and notes.

- calibration: Charles Darwin, On the Origin of Species (1859; sixth edition, 1872), the first 400 thousand characters.
- held out: William Morris, News from Nowhere (1890), the first 400 thousand characters.

Most language models have read both, as they have read most that is in the public domain: their loss on them is lower
than on a text that is new to them.
"""

import lzma
from functools import cache
from importlib.resources import files


def calibration_prose() -> str:
    """Return the prose that methods read before they change weights; the tasks never read it."""
    return _text("origin_of_species")


def held_out_prose() -> str:
    """Return the prose whose likelihood tasks measure; no method reads it."""
    return _text("news_from_nowhere")


@cache
def _text(name: str) -> str:
    return lzma.decompress(files("pith.texts").joinpath(f"{name}.txt.xz").read_bytes()).decode("utf-8")
