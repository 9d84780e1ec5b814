"""Common words are those that the list holds most often."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from pith.models import builtin
from pith.tasks.ruler.cwe import CWE

tokenizer = cache(lambda: builtin()[1])


@pytest.mark.parametrize("task", [CWE(length=500, count=3), CWE(length=200, count=3, common=3, often=5, seldom=2)])
def test_the_answer_is_what_counting_gives(task: CWE) -> None:
    for example in task.examples(tokenizer()):
        counts = Counter(example.context.removeprefix(" List: ").removesuffix(".").split())
        assert {word for word, times in counts.items() if times == (task.often or 30)} == {*example.parts}
        assert {times for word, times in counts.items() if word not in example.parts} == {task.seldom or 3}
        assert len(example.parts) == task.common
        assert {*example.candidates} == {*counts}
        assert f" {task.common} words" in example.question


def test_the_words_stand_in_random_order() -> None:
    [example] = CWE(length=500, count=1).examples(tokenizer())
    said = example.context.split()
    halves = [Counter(half)[example.parts[0]] for half in (said[: len(said) // 2], said[len(said) // 2 :])]
    assert min(halves) > 5
