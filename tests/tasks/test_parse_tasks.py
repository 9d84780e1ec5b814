"""Tasks as text."""

from __future__ import annotations

import pytest

from pith.core import InputError, ParameterError
from pith.tasks import Needle, Perplexity, parse_tasks, task, tasks


def test_text_and_tasks_are_one() -> None:
    parsed = parse_tasks("needle(length=2048, keys=4),perplexity")
    assert parsed == [Needle(length=2048), Perplexity()]
    assert [str(t) for t in parsed] == ["needle(length=2048)", "perplexity()"]
    assert parse_tasks(",".join(map(str, parsed))) == parsed
    assert parse_tasks("perplexity(text='a, b.txt')") == [Perplexity(text="a, b.txt")]
    assert parse_tasks("needle(depth=0.5)") == [Needle(depth=0.5)]


def test_a_task_that_comes_twice_is_run_once() -> None:
    assert parse_tasks("needle,needle(count=50),needle(count=3)") == [Needle(), Needle(count=3)]


def test_every_task_says_what_it_is() -> None:
    assert list(tasks()) == ["needle", "perplexity"]
    for name, found in tasks().items():
        assert task(name) is found
        assert found.metric
        assert found.doc("summary")
        assert all(p.doc and p.allowed for p in found.parameters())
    assert tasks()["needle"].higher_is_better
    assert not tasks()["perplexity"].higher_is_better


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        ("nedle", InputError, "no task is called 'nedle'; did you mean 'needle'.*; there are: needle, perplexity"),
        ("needle(lenght=3)", ParameterError, "needle has no parameter 'lenght'; did you mean 'length'"),
        ("needle(length=0)", ParameterError, "needle: length=0 is not allowed; allowed is int, 1 or more"),
        ("needle + perplexity", InputError, "no list of tasks: its parts are joined by ,"),
        ("needle(3)", InputError, "a parameter is given by name"),
        ("needle(count=1, count=2)", InputError, "count is given twice"),
        ("needle(text={[]: 1})", InputError, "a parameter's value is"),
        ("needle(", InputError, "was never closed"),
        ("  ", InputError, "an empty text"),
        ("()", InputError, "here a name is expected"),
    ],
)
def test_what_is_no_list_of_tasks(text: str, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        parse_tasks(text)
