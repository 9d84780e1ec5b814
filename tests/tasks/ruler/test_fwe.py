"""Frequent words fall off as a power of their rank."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from pith.models import builtin
from pith.tasks.ruler.fwe import DOTS, FWE

tokenizer = cache(lambda: builtin()[1])


@pytest.mark.parametrize("alpha", [2.0, 1.5])
@pytest.mark.parametrize("length", [400, 1500])
def test_the_answer_is_what_counting_gives(alpha: float, length: int) -> None:
    for example in FWE(length=length, count=3, alpha=alpha).examples(tokenizer()):
        counts = Counter(example.context.removeprefix(" Text: ").split()).most_common()
        words, often = zip(*counts, strict=True)
        assert words[0] == DOTS
        assert words[1:4] == example.parts
        assert often[1] > often[2] > often[3] > often[4], "the three can be told apart"
        for rank, times in enumerate(often, start=1):
            assert times <= often[0] * rank**-alpha < times + 1
        assert {*example.candidates} == {*words} - {DOTS}
