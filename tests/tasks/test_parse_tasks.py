"""Tasks as text."""

from __future__ import annotations

from typing import Any

import pytest

from pith.core import Call, InputError, ParameterError
from pith.tasks import Needle, Perplexity, parse_tasks, task, tasks
from pith.tasks.registry import SUITES, task_calls


def test_text_and_tasks_are_one() -> None:
    parsed = parse_tasks("needle(length=2048, keys=4),perplexity")
    assert parsed == [Needle(length=2048), Perplexity()]
    assert [str(t) for t in parsed] == ["needle(length=2048)", "perplexity()"]
    assert parse_tasks(",".join(map(str, parsed))) == parsed
    assert parse_tasks("perplexity(text='a, b.txt')") == [Perplexity(text="a, b.txt")]
    assert parse_tasks("needle(depth=0.5)") == [Needle(depth=0.5)]


def test_a_task_that_comes_twice_is_run_once() -> None:
    assert parse_tasks("needle,needle(count=50),needle(count=3)") == [Needle(), Needle(count=3)]


def test_settings_reach_the_tasks_that_leave_them_open() -> None:
    found = parse_tasks("needle(length=64),vt,perplexity", {"length": 128, "query": "agnostic", "seed": 3})
    assert [str(t) for t in found] == [
        "needle(length=64, seed=3, query='agnostic')",
        "vt(length=128, seed=3, query='agnostic')",
        "perplexity(length=128, seed=3)",
    ]


def test_a_suite_is_all_its_tasks() -> None:
    found = parse_tasks("vt(length=64),ruler(count=7, seed=2),needle", {"length": 128, "count": 9})
    assert [t.name for t in found] == ["vt", *SUITES["ruler"], "needle"]
    assert len(SUITES["ruler"]) == 13
    assert {str(t).partition("(")[2] for t in found[1:-1]} == {"length=128, count=7, seed=2)"}
    assert str(found[0]) == "vt(length=64, count=9)"
    with pytest.raises(InputError, match=r"ruler is no task but stands for several: niah_single_1, .*, qa_2"):
        task("ruler")
    with pytest.raises(ParameterError, match="niah_single_1 has no parameter 'hops'"):
        parse_tasks("ruler(hops=2)")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("lm_eval:arc_easy", {"task": "arc_easy"}),
        ("lm_eval:arc_easy()", {"task": "arc_easy"}),
        ("lm_eval:mmlu-pro.v2/law(count=50)", {"task": "mmlu-pro.v2/law", "count": 50}),
        ("lm_eval:arc_easy (count=50, include='a,b (1)')", {"task": "arc_easy", "count": 50, "include": "a,b (1)"}),
        ("lm_eval(task='arc_easy')", {"task": "arc_easy"}),
    ],
)
def test_a_task_of_the_harness_is_named_behind_a_colon(text: str, values: dict[str, Any]) -> None:
    assert task_calls(f"needle,{text},vt") == [Call("needle", {}), Call("lm_eval", values), Call("vt", {})]


def test_a_colon_in_a_text_stays() -> None:
    text = """perplexity(text='lm_eval:a.txt'),perplexity(text="it's lm_eval:b"),perplexity(text='\\'lm_eval:c')"""
    assert [call.values["text"] for call in task_calls(text)] == ["lm_eval:a.txt", "it's lm_eval:b", "'lm_eval:c"]


def test_every_task_says_what_it_is() -> None:
    assert list(tasks()) == sorted(tasks())
    assert {"needle", "perplexity", "lookup", *SUITES["ruler"]} <= {*tasks()}
    for name, found in tasks().items():
        assert task(name) is found
        assert found.name == name
        assert found.metric
        assert found.doc("summary")
        assert all(p.doc and p.allowed for p in found.parameters())
    assert tasks()["needle"].higher_is_better
    assert not tasks()["perplexity"].higher_is_better


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        (
            "nedle",
            InputError,
            "no task is called 'nedle'; did you mean 'needle'\\?$",
        ),
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
