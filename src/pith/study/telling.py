"""Whether the dense model can do a task at all, said as soon as its first examples show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

from pith.core import PithError
from pith.core.words import digits
from pith.models import Loaded, Subject
from pith.tasks import Calibration, Needle, Quality, Task
from pith.tasks.early import FIRST, tells
from pith.tasks.passkey import Passkey

SHORT = 256
"""Tokens of the tasks that are tried in the place of one that tells nothing."""


class Telling:
    """Say which tasks tell nothing about recipes, because the dense model is not better than chance there.

    Args:
        loaded: the model.
        say: given a line for the user, at once.
        batch_size: sequences that a task reads at once.
    """

    def __init__(self, loaded: Loaded, say: Callable[[str], None], batch_size: int = 8) -> None:
        self._loaded, self._say, self._batch_size = loaded, say, batch_size
        self._doubted: set[str] = set()
        self._telling: list[str] = []

    def early(self, task: Task, calibration: Calibration, quality: Quality, total: int) -> None:
        """Say that the dense model's first examples are not better than chance, where they are not.

        Args:
            task: the task.
            calibration: what an oracle and a guesser score on it.
            quality: the score of the first examples.
            total: how many there are in all.
        """
        if not tells(task, quality, calibration):
            self._doubted.add(str(task))
            line = _line(task, calibration, quality, f"tells nothing so far: on the first {quality.n} of {total}")
            self._say(f"{line}; {self._ways(task)}")

    def final(self, task: Task, calibration: Calibration, quality: Quality) -> None:
        """Say what all examples of the dense model tell; where that is nothing, try a few tasks in its place.

        Args, besides: as of `early`.
        """
        if tells(task, quality, calibration):
            self._telling.append(str(task))
            if str(task) in self._doubted:
                self._say(f"note: {task}: on all {quality.n} examples the dense model is better than chance")
            return
        line = _line(task, calibration, quality, f"tells nothing here: on {quality.n}")
        self._say(f"{line}; {self._found(task) or self._ways(task)}")

    def _ways(self, task: Task) -> str:
        """Return what the user can do about a task, in words."""
        ways = []
        if self._can_chat(task):
            ways.append("--chat")
        if not task.higher_is_better:
            ways.append("another text (--text FILE)")
        elif _has(task, "length"):
            ways.append("a shorter --length")
        ways.append(f"{self._telling[0]}, which this model can do" if self._telling else "another task")
        return f"try {', or '.join(ways)}"

    def _found(self, task: Task) -> str:
        """Return which of a few short tasks the dense model can do, in words."""
        tried = []
        for other in self._others(task):
            subject = Subject(self._loaded.model, self._loaded.tokenizer)
            try:
                other.check_length(self._loaded.model)
                calibration = other.calibrate(subject.tokenizer)
                quality = other.run(subject, self._batch_size)
            except PithError:  # too short or too long for this model or task
                continue
            tried.append(str(other))
            if tells(other, quality, calibration):
                return f"{other} does, with {digits(quality.value)} on {quality.n} examples"
        return f"neither does {', nor '.join(tried)}" if tried else ""

    def _others(self, task: Task) -> Iterator[Task]:
        """Give short tasks to try instead, the most similar ones first."""
        chat = self._can_chat(task)
        if task.higher_is_better and _has(task, "length") and _has(task, "count"):
            short = {"length": min(SHORT, getattr(task, "length", SHORT)), "count": FIRST}
            if getattr(task, "length", SHORT) > SHORT:
                yield _with(task, **short)
            if chat:
                yield _with(task, **short, chat=True)
        for other in (Passkey(length=SHORT, count=FIRST), Needle(length=SHORT, count=FIRST)):
            if other.name != task.name:
                yield replace(other, chat=True) if chat or getattr(task, "chat", False) else other

    def _can_chat(self, task: Task) -> bool:
        """Return whether a task could ask in the model's chat template, and does not yet."""
        has = bool(getattr(self._loaded.tokenizer, "chat_template", None))
        return has and _has(task, "chat") and not getattr(task, "chat", True)


def _has(task: Task, name: str) -> bool:
    return any(field.name == name for field in fields(task))


def _with(task: Task, **values: Any) -> Task:
    return replace(task, **values)


def _line(task: Task, calibration: Calibration, quality: Quality, what: str) -> str:
    side = "above" if task.higher_is_better else "below"
    return (
        f"note: {task} {what} examples the dense model scores {digits(quality.value)} "
        f"({digits(quality.low)} to {digits(quality.high)}), not {side} chance ({digits(calibration.chance or 0.0)})"
    )
