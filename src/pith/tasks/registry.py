"""The tasks by their names, suites of them, and tasks as text."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import pith.tasks
from pith.core import Call, Grammar, InputError, nearest, shown
from pith.tasks.base import Task

SUITES: dict[str, tuple[str, ...]] = {
    "ruler": (
        "niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2", "niah_multikey_3",
        "niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2",
    ),
    "kick": ("kick_factoid", "kick_choice", "kick_reasoning", "kick_retrieval", "kick_generation"),
}  # fmt: skip
"""Words that stand for several tasks; parameters given to such a word go to each of them."""

_GRAMMAR = Grammar(
    what="list of tasks",
    joiner=",",
    example="needle(length=2048)",
    empty='write such as "needle,perplexity"',
    error=InputError,
)
# `lm_eval:arc_easy`, but not within a text in quotes
_HARNESS = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\blm_eval:(?P<task>[\w./-]+)(?P<open>\s*\()?""")


@cache
def tasks() -> dict[str, type[Task]]:
    """Every task by its name: the classes of this package that can be run."""
    found: dict[str, type[Task]] = {}
    for module in pkgutil.walk_packages(pith.tasks.__path__, "pith.tasks."):
        for _, one in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(one, Task) and not inspect.isabstract(one):
                found[one.name] = one
    return dict(sorted(found.items()))


def task(name: str) -> type[Task]:
    """The task of that name.

    Raises:
        InputError: there is none, and the message names the nearest, or the command that lists all; or it is a suite,
            whose tasks the message lists.
    """
    known = tasks()
    if name in SUITES:
        raise InputError(f"{name} is no task but stands for several: {', '.join(SUITES[name])}")
    if name not in known:
        hint = nearest(name, [*known, *SUITES]) or "; `pith tasks` lists all"
        raise InputError(f"no task is called {shown(name)}{hint}")
    return known[name]


def task_calls(text: str) -> list[Call]:
    """What a text such as `"needle(length=2048),ruler(count=20)"` states: tasks and their parameters, suites opened.

    `lm_eval:arc_easy(count=50)` is `lm_eval(task='arc_easy', count=50)`.

    Raises:
        InputError: the text is no list of tasks; the message points at the place.
    """
    calls = _GRAMMAR.parse(_HARNESS.sub(_rewritten, text))
    return [Call(name, call.values) for call in calls for name in SUITES.get(call.name, (call.name,))]


def parse_tasks(text: str, settings: Mapping[str, Any] = MappingProxyType({})) -> list[Task]:
    """The tasks that a text such as `"needle(length=2048, keys=4),perplexity"` stands for, each once, in its order.

    Args:
        text: the tasks, or suites of them.
        settings: parameters for each task that has them and whose text does not set them.

    Raises:
        InputError: the text is no list of tasks (the message points at the place), or a task is not known.
        ParameterError: a task has no such parameter, or a value is wrong.
    """
    found: dict[Task, None] = {}
    for call in task_calls(text):
        kind = task(call.name)
        takes = {p.name for p in kind.parameters()}
        found[kind.build(**{**{k: v for k, v in settings.items() if k in takes}, **call.values})] = None
    return list(found)


def _rewritten(match: re.Match[str]) -> str:
    if match["task"] is None:
        return match[0]
    return f"lm_eval(task={match['task']!r}" + (", " if match["open"] else ")")
