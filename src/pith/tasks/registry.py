"""The tasks by their names, and tasks as text."""

from __future__ import annotations

from pith.core import Grammar, InputError, nearest
from pith.tasks.base import Task
from pith.tasks.needle import Needle
from pith.tasks.perplexity import Perplexity

_TASKS: tuple[type[Task], ...] = (Needle, Perplexity)
_GRAMMAR = Grammar(
    what="list of tasks",
    joiner=",",
    example="needle(length=2048)",
    empty='write such as "needle,perplexity"',
    error=InputError,
)


def tasks() -> dict[str, type[Task]]:
    """Every task by its name."""
    return {task.name: task for task in _TASKS}


def task(name: str) -> type[Task]:
    """The task of that name.

    Raises:
        InputError: there is none; the message lists all.
    """
    known = tasks()
    if name not in known:
        raise InputError(f"no task is called {name!r}{nearest(name, known)}; there are: {', '.join(known)}")
    return known[name]


def parse_tasks(text: str) -> list[Task]:
    """The tasks that a text such as `"needle(length=2048, keys=4),perplexity"` stands for, each once, in its order.

    Raises:
        InputError: the text is no list of tasks (the message points at the place), or a task is not known.
        ParameterError: a task has no such parameter, or a value is wrong.
    """
    return list(dict.fromkeys(task(call.name).build(**call.values) for call in _GRAMMAR.parse(text)))
