"""Questions about people are answered by their documents."""

from __future__ import annotations

import re
from functools import cache

import pytest

from pith.models import builtin
from pith.tasks import parse_tasks
from pith.tasks.ruler.qa import CITIES, FIRST, LAST, QA, TRADES

tokenizer = cache(lambda: builtin()[1])

DOCUMENT = r"\n(\w+ \w+) is a \w+ and lives in (\w+)\. The (\w+) of \1 is (\w+ \w+)\."


@pytest.mark.parametrize(("text", "hops"), [("qa_1", 1), ("qa_2", 2), ("qa(hops=4)", 4)])
def test_the_answer_follows_from_the_documents(text: str, hops: int) -> None:
    [task] = parse_tasks(text, {"length": 400, "count": 6})
    assert isinstance(task, QA)
    assert task.hops == hops
    for example in task.examples(tokenizer()):
        documents = re.findall(DOCUMENT, example.context)
        assert re.sub(DOCUMENT, "", example.context) == ""
        home = {name: city for name, city, _, _ in documents}
        knows = {(name, tie): other for name, _, tie, other in documents}
        found = re.fullmatch(r"\n\nQuestion: In which city does (.+) live\?\nAnswer:", example.question)
        assert found
        *ties, who = found[1].split(" of ")
        for tie in reversed(ties):
            who = knows[who, tie.removeprefix("the ")]
        assert example.answer == f" {home[who]}"
        assert len(ties) == hops - 1
        assert example.depth == [*home].index(who) / (len(home) - 1)
        assert {*example.candidates} == {*home.values()}
        assert all(name != other for name, _, _, other in documents)
        assert len(home) == len(documents)


def test_names_are_different_names() -> None:
    for names in (FIRST, LAST, CITIES, TRADES):
        assert len({*names}) == len(names) >= 16
