"""The answer of a tracing question follows from the assignments."""

from __future__ import annotations

import re
from functools import cache

import pytest

from pith.models import builtin
from pith.tasks.tracing import Tracing

tokenizer = cache(lambda: builtin()[1])


@pytest.mark.parametrize("hops", [1, 2, 4])
@pytest.mark.parametrize("chains", [None, 3])
def test_the_answer_spells_the_chain(hops: int, chains: int | None) -> None:
    for example in Tracing(length=300, count=3, hops=hops, chains=chains).examples(tokenizer()):
        said = re.findall(r" ([\w-]+) is ([\w-]+)\.", example.context)
        means = dict(said)
        assert len(means) == len(said) == hops * len(example.candidates)
        assert chains is None or len(example.candidates) == chains
        steps = [example.question.removeprefix("\nRecall: ").removesuffix(" is")]
        while steps[-1] in means:
            steps.append(means[steps[-1]])
        assert example.answer == " " + " is ".join(steps[1:])
        assert len(steps) == hops + 1
        assert example.answer.strip() in example.candidates
