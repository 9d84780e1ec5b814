"""A passkey is the only number in its noise."""

from __future__ import annotations

import re
from functools import cache

import pytest

from pith.models import Subject, builtin
from pith.tasks.passkey import Passkey

loaded = cache(builtin)


@pytest.mark.parametrize("digits", [1, 4, 12])
def test_there_is_one_number(digits: int) -> None:
    for example in Passkey(length=200, count=3, digits=digits).examples(loaded()[1]):
        assert re.findall(r"\d+", example.context) == [example.answer.strip()]
        assert f" passkey is{example.answer}." in example.context
        assert len(example.answer.strip()) == digits


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_it_stands_at_its_depth(depth: float) -> None:
    task = Passkey(length=300, count=3, depth=depth)
    for example in task.examples(loaded()[1]):
        assert example.context.index(" passkey") / len(example.context) == pytest.approx(depth, abs=0.06)
    assert task.run(Subject(*loaded())).depths == (depth,) * 3
