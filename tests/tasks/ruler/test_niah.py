"""Needles are hidden as RULER's table says, and asked for."""

from __future__ import annotations

import re
from functools import cache
from uuid import UUID

import pytest

from pith.core import InputError
from pith.models import builtin
from pith.tasks import parse_tasks, tasks
from pith.tasks.filler import NOISE
from pith.tasks.generate import Example
from pith.tasks.ruler.niah import Niah

tokenizer = cache(lambda: builtin()[1])

UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
FACT = rf" ({UUID4}|[a-z]+(?:-[a-z]+)?) is ({UUID4}|\d{{4}})\."


def stated(example: Example) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = re.findall(FACT, example.context)
    return found


def asked(example: Example) -> list[str]:
    question = example.question.removeprefix("\nRecall")
    found = re.fullmatch(r"(?: all \d+ values)?: (.+) (?:is|are)", question)
    assert found
    return found[1].split(", ")


@pytest.mark.parametrize(
    ("name", "facts", "keys", "answers", "haystack", "uuid_key", "uuid_value"),
    [
        ("niah_single_1", 1, 1, 1, "noise", False, False),
        ("niah_single_2", 1, 1, 1, "text", False, False),
        ("niah_single_3", 1, 1, 1, "text", False, True),
        ("niah_multikey_1", 4, 1, 1, "text", False, False),
        ("niah_multikey_2", None, 1, 1, "needles", False, False),
        ("niah_multikey_3", None, 1, 1, "needles", True, True),
        ("niah_multivalue", 4, 1, 4, "text", False, False),
        ("niah_multiquery", 4, 4, 4, "text", False, False),
    ],
)
def test_each_task_is_its_row_of_the_table(
    name: str, facts: int | None, keys: int, answers: int, haystack: str, uuid_key: bool, uuid_value: bool
) -> None:
    [task] = parse_tasks(f"{name}(length=500, count=4)")
    assert isinstance(task, Niah)
    for example in task.examples(tokenizer()):
        said = stated(example)
        assert len(said) == facts if facts else len(said) >= 5
        assert len(asked(example)) == keys
        expected = [value for key in asked(example) for other, value in said if other == key]
        assert sorted(example.parts) == sorted(expected)
        assert len(example.parts) == answers
        assert sorted(example.candidates) == sorted(value for _, value in said)
        without = re.sub(FACT, "", example.context)
        assert (without == "", NOISE in without) == (haystack == "needles", haystack == "noise")
        assert all(bool(re.fullmatch(UUID4, key)) is uuid_key for key, _ in said)
        assert all(bool(re.fullmatch(UUID4, value)) is uuid_value for _, value in said)
        assert not uuid_value or UUID(said[0][1]).version == 4
        assert (example.depth is None) == (answers > 1)


def test_any_kind_can_be_asked_for() -> None:
    for example in Niah(length=400, count=3, keys=3, values=2, queries=2).examples(tokenizer()):
        assert len(stated(example)) == 6
        assert len(asked(example)) == 2
        assert len(example.parts) == 4
    among = Niah(length=400, count=3, keys=2, queries=2, filler="needles")
    assert all(len(asked(example)) == 2 for example in among.examples(tokenizer()))


def test_the_asked_needle_is_anywhere_among_needles() -> None:
    [task] = parse_tasks("niah_multikey_2(length=300, count=20)")
    assert isinstance(task, Niah)
    depths = [example.depth for example in task.examples(tokenizer())]
    for example in task.examples(tokenizer()):
        keys = [key for key, _ in stated(example)]
        assert example.depth == keys.index(asked(example)[0]) / (len(keys) - 1)
    assert min(depths) < 0.3 < 0.7 < max(depths)


def test_more_queries_than_keys_are_refused() -> None:
    with pytest.raises(InputError, match="niah: queries=3 is not allowed; allowed are at most keys=2"):
        Niah(keys=2, queries=3).examples(tokenizer())


def test_named_tasks_keep_the_documentation_of_their_parameters() -> None:
    mine, own = ({p.name: p for p in tasks()[name].parameters()} for name in ("niah_multiquery", "niah"))
    assert mine["queries"].default == 4
    assert own["queries"].default == 1
    assert {name: p.doc for name, p in mine.items()} == {name: p.doc for name, p in own.items()}
