"""Variable tracking: the chain stands in the context, in order, and the answer spells it."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise

import pytest

from pith.models import builtin
from pith.tasks.ruler.vt import VT
from pith.tasks.scoring import score
from pith.tasks.words import KEY_WORDS

tokenizer = cache(lambda: builtin()[1])


@pytest.mark.parametrize(("chains", "hops"), [(1, 4), (1, 1), (3, 2)])
def test_the_answer_follows_the_chain(chains: int, hops: int) -> None:
    for example in VT(length=300, count=4, chains=chains, hops=hops).examples(tokenizer()):
        said = re.findall(r" ([a-z]+) is ([a-z]+|\d{4})\.", example.context)
        assert len(said) == chains * (hops + 1)
        means, order = dict(said), [name for name, _ in said]
        steps = [example.question.removeprefix("\nRecall: ").removesuffix(" is")]
        while steps[-1] in means:
            steps.append(means[steps[-1]])
        assert list(example.parts) == steps[1:]
        assert len(steps) == hops + 2
        assert all(order.index(later) > order.index(earlier) for later, earlier in pairwise(steps[:-1]))
        assert {*example.candidates} == {*KEY_WORDS, *(value for value in means.values() if value.isdigit())}


def test_part_of_the_chain_is_part_of_the_score() -> None:
    [example] = VT(length=300, count=1).examples(tokenizer())
    assert score(example, f" {example.parts[0]} is {example.parts[1]}", "all") == pytest.approx(2 / 5)
