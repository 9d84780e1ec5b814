"""Look-up is facts and nothing else."""

from __future__ import annotations

import re
from functools import cache

import pytest

from pith.core import InputError
from pith.models import builtin
from pith.tasks.lookup import Lookup

tokenizer = cache(lambda: builtin()[1])


@pytest.mark.parametrize("task", [Lookup(length=300, count=3), Lookup(pairs=8, count=3)])
def test_one_of_many_facts_is_asked_for(task: Lookup) -> None:
    for example in task.examples(tokenizer()):
        facts = dict(re.findall(r" ([\w-]+) is (\d{4})\.", example.context))
        assert "".join(f" {key} is {value}." for key, value in facts.items()) == example.context
        key = example.question.removeprefix("\nRecall: ").removesuffix(" is")
        assert example.answer == f" {facts[key]}"
        assert example.candidates == tuple(facts.values())
        assert example.depth == [*facts].index(key) / (len(facts) - 1)
        assert task.pairs is None or len(facts) == task.pairs


def test_there_are_names_for_more_facts_than_words() -> None:
    [example] = Lookup(length=4000, count=1).examples(tokenizer())
    keys = re.findall(r" ([\w-]+) is \d{4}\.", example.context)
    assert len({*keys}) == len(keys) > 300
    assert any("-" in key for key in keys)
    assert any("-" not in key for key in keys)


def test_pairs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"lookup: length=50 is too short; such an example takes \d+"):
        Lookup(length=50, pairs=20).examples(tokenizer())
