"""The answer of a copying question is the rest of the list whose first word is given."""

from __future__ import annotations

import re
from functools import cache

import pytest

from pith.models import builtin
from pith.tasks.copying import Copying

tokenizer = cache(lambda: builtin()[1])


@pytest.mark.parametrize("task", [Copying(length=300, count=3), Copying(words=5, lists=4, count=3)])
def test_the_rest_of_the_list_is_the_answer(task: Copying) -> None:
    for example in task.examples(tokenizer()):
        lists = [one.split() for one in re.findall(r" List: ([^.]+)\.", example.context)]
        assert all(len(one) == task.words for one in lists)
        assert task.lists is None or len(lists) == task.lists
        first = example.question.removeprefix("\nRecall: List: ")
        [asked] = [one for one in lists if one[0] == first]
        assert example.answer.split() == asked[1:]
        assert [one.split() for one in example.candidates] == [one[1:] for one in lists]
        assert len({word for one in lists for word in one}) == task.words * len(lists)
