"""Numbers and names as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from pith.core import written
from pith.core.words import bytes_ as bytes_
from pith.core.words import digits as digits
from pith.tasks import Task


def seconds(value: float) -> str:
    """A time with three digits and the unit that suits it, such as `12.3 ms`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{digits(value / size)} {unit}"
    return f"{digits(value / 1e-6)} µs"


def percent(share: float) -> str:
    """A share as a percentage, such as `25.1%`."""
    return f"{share:.1%}" if share < 0.9995 else f"{share:.0%}"


def listed(words: list[str], joint: str = "and") -> str:
    """Words in a sentence: `a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}" if words else ""


def headings(tasks: Sequence[Task]) -> list[str]:
    """Each task's name, with the parameters in which it differs from others of that name."""
    return [_heading(task, [other for other in tasks if other.name == task.name]) for task in tasks]


def _heading(task: Task, namesakes: Sequence[Task]) -> str:
    apart = [p.name for p in task.parameters() if len({getattr(other, p.name) for other in namesakes}) > 1]
    stated = ", ".join(f"{name}={written(getattr(task, name))}" for name in apart)
    return f"{task.name}({stated})" if stated else task.name
