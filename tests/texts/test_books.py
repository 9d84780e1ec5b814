"""The prose that comes with Pith."""

from __future__ import annotations

import pytest

from pith.texts import calibration_prose, held_out_prose


@pytest.mark.parametrize("text", [calibration_prose(), held_out_prose()], ids=["calibration", "held out"])
def test_it_is_plain_prose(text: str) -> None:
    assert text.isascii()
    assert len(text) > 390_000
    paragraphs = text.splitlines()
    assert min(map(len, paragraphs)) >= 80
    assert not any("Gutenberg" in one or one.isupper() for one in paragraphs)


def test_what_methods_read_is_not_what_tasks_measure() -> None:
    assert not set(calibration_prose().splitlines()) & set(held_out_prose().splitlines())
