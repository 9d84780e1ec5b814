"""What the terminal shows while `pith fit` searches; all of it on stderr."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType

from rich import box
from rich.table import Table
from rich.text import Text

from pith.cli.command import say
from pith.cli.pulse import TOLD, Pulse, left
from pith.cli.screen import Screen
from pith.cli.watch import TerminalWatch
from pith.core import Recipe
from pith.core.words import bytes_
from pith.search.fit import with_front
from pith.search.sought import Tried
from pith.study import Question, Study
from pith.tasks import Task


class TerminalFitWatch:
    """The front and the latest recipes, over two bars; where stderr is no terminal, one line for each recipe tried.

    When the search is over, what is measured afresh is shown as a comparison is.

    Args:
        start: the line that says what is searched where; said before the first work.
        batch_size: sequences that a task reads at once, for the estimate of what is measured afresh.
        ends: when the search ends at the latest, by `time.monotonic`.
    """

    def __init__(self, start: str = "", batch_size: int = 8, ends: float = math.inf) -> None:
        self._start, self._batch_size, self._ends = start, batch_size, ends
        self._now, self._part, self._tried, self._wanted = "", "", 0, 0
        self._begun_at, self._begun_with = 0.0, 0  # the search, and how many were tried before
        self._screen = Screen("recipes tried", None)
        self._fresh: TerminalWatch | None = None
        self._pulse = Pulse(self._line, self._screen.draw if self._screen.is_terminal else None)

    def __enter__(self) -> TerminalFitWatch:
        if self._start:
            say(self._start)
        self._screen.start()
        self._pulse.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pulse.stop()
        self._screen.stop()
        if self._fresh is not None:
            self._fresh.__exit__(kind, error, at)

    def progress(self, what: str, done: int, total: int) -> None:
        """A part of a trial, or of a fresh measurement, goes on."""
        self._part = f"{what}: {done} of {total}"
        (self._fresh.progress if self._fresh is not None else self._screen.part)(what, done, total)

    def tries(self, recipe: Recipe) -> None:
        """A recipe is about to be tried."""
        self._begun_at = self._begun_at or time.monotonic()
        self._now, self._part = f"trying {recipe}", ""
        self._screen.begins(str(recipe))

    def has_tried(self, tried: Sequence[Tried], wanted: int) -> None:
        """Everything that was tried so far, and how many recipes are to be tried on examples."""
        done = sum(t.examples > 0 for t in tried)
        if not self._wanted:
            self._begun_with = done - (tried[-1].examples > 0)
        self._tried, self._wanted = done, wanted
        self._screen.whole(done, wanted)
        self._screen.note = self._estimate()
        if not self._screen.is_terminal:
            self._pulse.said()
            say(f"{done}/{wanted} {tried[-1].recipe}: {_line(tried[-1])}{self._also()}")
        room = max(4, self._screen.size[1] - 8)
        front = sorted((t for t in with_front(tried) if t.on_front), key=lambda t: -(t.quality or 0))[: room // 2]
        self._screen.table = _table(front, tried[-(room - len(front)) :])
        self._screen.draw()

    def measures(self, recipes: int) -> None:
        """The search is over; so many recipes are measured afresh."""
        self._pulse.stop()
        self._screen.stop()
        if not self._screen.is_terminal:
            say(f"measuring afresh: {recipes} recipes, the dense model among them")
        self._fresh = TerminalWatch(recipes, self._batch_size).__enter__()

    def _line(self) -> str:
        """What is in hand, for a log in which nothing was said for a while."""
        words = [word for word in (self._now or "measuring the dense model", self._part) if word]
        return f"{self._tried}/{self._wanted or '?'} tried; {', '.join(words)}{self._also()}"

    def _estimate(self) -> str:
        """How long the search still takes: as many trials as are left, each as long as those so far."""
        new = self._tried - self._begun_with
        if new < 1:
            return ""
        seconds = (time.monotonic() - self._begun_at) / new * (self._wanted - self._tried)
        seconds = min(seconds, self._ends - time.monotonic())
        return left(seconds) if seconds >= TOLD else ""

    def _also(self) -> str:
        return f"; {estimate} for the search" if (estimate := self._estimate()) and self._tried < self._wanted else ""

    def expects(self, question: Question, left: Sequence[tuple[Recipe, Task | None]]) -> None:
        """What is measured afresh is told."""
        if self._fresh is not None:
            self._fresh.expects(question, left)

    def prepares(self, task: Task, done: int, total: int) -> None:
        """The examples of a task are about to be made."""
        if self._fresh is not None:
            self._fresh.prepares(task, done, total)

    def begins(self, recipe: Recipe) -> None:
        """A recipe is about to be measured afresh."""
        if self._fresh is not None:
            self._fresh.begins(recipe)

    def begins_together(self, recipes: Sequence[Recipe]) -> None:
        """Several recipes are about to take turns in a task."""
        if self._fresh is not None:
            self._fresh.begins_together(recipes)

    def has(self, study: Study, recipe: Recipe, stored: bool) -> None:
        """The fresh comparison knows of one recipe more."""
        if self._fresh is not None:
            self._fresh.has(study, recipe, stored)


def _table(front: Sequence[Tried], latest: Sequence[Tried]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, title in enumerate(("recipe", "memory", "quality kept", "decode time", "")):
        shown.add_column(title, justify="right" if 0 < index < 4 else "left", no_wrap=0 < index < 4, overflow="fold")
    for one in front:
        shown.add_row(*_cells(one, "on the front"))
    shown.add_section()
    for one in latest:
        shown.add_row(*_cells(one, one.given_up or ""), style="dim" if one.given_up else "")
    return shown


def _cells(tried: Tried, said: str) -> list[Text]:
    return [Text(word) for word in (tried.recipe, *_numbers(tried), said)]


def _numbers(tried: Tried) -> tuple[str, str, str]:
    return (
        "" if tried.memory is None else bytes_(tried.memory),
        "" if tried.quality is None else f"{tried.quality:.3f}",
        "" if tried.latency is None else f"{tried.latency:.2f}x",
    )


def _line(tried: Tried) -> str:
    """One trial in words."""
    if tried.given_up is not None:
        return f"given up: {tried.given_up}"
    memory, quality, latency = _numbers(tried)
    return f"{memory}, keeps {quality} of the quality, {latency} the time"
