"""What the terminal, or a log, shows while a comparison runs; all of it on stderr."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from pith.cli.command import say
from pith.cli.pulse import TOLD, Pulse, about, left
from pith.cli.screen import Screen
from pith.cli.show import rich_table
from pith.cli.starting import shorter, study_line
from pith.core import Recipe
from pith.measure.cost import BYTES, SPEED
from pith.report import label, table
from pith.report.words import headings
from pith.study import Question, Study
from pith.study.remaining import Remaining, pieces
from pith.tasks import Task

LONG = 600.0
"""Seconds of an estimate above which it is said how the comparison could be made shorter."""

SLOW = 1.0
"""Seconds of a piece from which on a log has a line when it is done."""

_UNITS = {SPEED: "timed runs", BYTES: "runs"}
"""What is counted of the pieces that are no tasks; a task counts examples."""


class TerminalWatch:
    """A table that grows, over two bars and an estimate; where stderr is no terminal, a line now and then.

    Args:
        recipes: how many there are.
        batch_size: sequences that a task reads at once, for the estimate.
        start: the line that says what is compared where; empty where it was said already.
        quick: what --quick would set; empty where it is given already, and None where nothing may be changed.
    """

    def __init__(self, recipes: int, batch_size: int = 8, start: str = "", quick: str | None = None) -> None:
        self._recipes, self._batch_size, self._start, self._quick = recipes, batch_size, start, quick
        self._question: Question | None = None
        self._done, self._began = 0, False
        self._recipe = self._label = ""
        self._together: tuple[str, ...] = ()  # the recipes that take turns in a task
        self._names: dict[str, str] = {}
        self._remaining = Remaining(())
        self._now = "reading what is stored and hashing the model"  # what is in hand, in words
        self._begun_at = time.monotonic()  # the piece in hand, or the workers
        self._tenth = 0
        self._answers: int | None = None  # of the answers of workers; how many there were when they began
        self._first = self._advised = True  # whether the estimate, and how to make it shorter, is still to be said
        self._screen = Screen("recipes", recipes)
        self._pulse = Pulse(self._line, self._redraw if self._screen.is_terminal else None)

    def __enter__(self) -> TerminalWatch:
        self._screen.start()
        self._pulse.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pulse.stop()
        self._screen.stop()

    def starts(self) -> None:
        """Say what is compared where, once."""
        if self._start:
            self._began = True
            say(self._start)
        self._start = ""

    def expects(self, question: Question, left: Sequence[tuple[Recipe, Task | None]]) -> None:
        """Take note of what is to be measured."""
        if left and (self._start or self._began):
            self.starts()
            say(study_line(question, left))
        self._question = question
        named = {str(task): name for task, name in zip(question.tasks, headings(question.tasks), strict=True)}
        self._names = named
        self._remaining = Remaining(pieces(question, left, self._batch_size))

    def prepares(self, task: Task, done: int, total: int) -> None:
        """The examples of a task are about to be made."""
        self._now = f"making the examples of {self._names[str(task)]} ({done + 1} of {total} tasks)"
        self._screen.part(self._now.partition(" (")[0], done, total)

    def begins(self, recipe: Recipe) -> None:
        """A recipe is about to be measured."""
        self._recipe, self._together, self._begun_at = str(recipe), (), time.monotonic()
        self._now = self._label = f"{self._done + 1}/{self._recipes} {label(recipe)}"
        self._remaining.begins()
        self._screen.begins(label(recipe))

    def begins_together(self, recipes: Sequence[Recipe]) -> None:
        """Several recipes are about to take turns in a task."""
        self._recipe, self._together, self._begun_at = "", tuple(map(str, recipes)), time.monotonic()
        self._now = self._label = f"{len(recipes)} recipes together"
        self._remaining.begins()
        self._screen.begins(self._label)

    def progress(self, what: str, done: int, total: int) -> None:
        """A part of a recipe's measurement goes on."""
        self._remaining.step(self._together or (self._recipe,), what, done, total)
        name = self._names.get(what, what)
        units = f"{name}: {done} of {total} {self._units(what)}".strip()
        self._now = f"{self._label}, {units}" if self._recipe or self._together else units
        self._screen.note = self._estimate()
        self._screen.part(name, done, total)
        if done == total:
            taken, self._begun_at = time.monotonic() - self._begun_at, time.monotonic()
            if taken >= SLOW:
                self._say(f"{self._now}, done in {about(taken)}{self._also()}")
        self._announce()

    def answered(self, done: int, total: int) -> None:
        """Workers have answered so many of the questions that tasks ask of recipes."""
        if self._answers is None:
            self._answers, self._begun_at = done, time.monotonic()
        new = done - self._answers
        seconds = (time.monotonic() - self._begun_at) / new * (total - done) if new else 0.0
        ends = f"{left(seconds)} for the answers" if seconds >= TOLD else ""
        self._now = f"{done}/{total} answers" + (f"; {ends}" if ends else "")
        tenth = 10 * done // total
        if tenth > self._tenth:
            self._say(self._now)
        self._tenth = tenth
        if done == total:
            self._remaining.drop(lambda piece: piece.what not in _UNITS)
        self._screen.note = ends
        self._screen.part("answers", done, total)

    def has(self, study: Study, recipe: Recipe, stored: bool) -> None:
        """The study knows of one recipe more."""
        self._remaining.ends(str(recipe))
        if self._screen.is_terminal and study.measurements:
            width, height = self._screen.size
            self._screen.table = rich_table(table(study), width, last=max(1, (height - 8) // 2))
        self._done = len(study.measurements) + len(study.refused)
        self._screen.whole(self._done, self._recipes)
        why = study.refused.get(str(recipe))
        if why:
            say(f"note: {label(recipe)} is left out: {why}")
        else:
            self._say(f"{self._done}/{self._recipes} {label(recipe)}: {'stored earlier' if stored else 'measured'}")
        self._screen.draw()

    def _say(self, line: str) -> None:
        """A line for a log; a terminal shows it by its bars."""
        if not self._screen.is_terminal:
            self._pulse.said()
            say(line)

    def _line(self) -> str:
        """What is in hand, for a log in which nothing was said for a while."""
        return f"{self._now}{self._also()}"

    def _estimate(self) -> str:
        seconds = self._remaining.seconds()
        return left(seconds) if seconds else ""

    def _also(self) -> str:
        seconds = self._remaining.seconds()
        return f"; {left(seconds)}" if seconds is not None and seconds >= TOLD else ""

    def _announce(self) -> None:
        """Say the first estimate, and once how a long comparison becomes shorter."""
        seconds = self._remaining.seconds()
        if seconds is None or seconds < TOLD:
            return
        if self._first:
            self._first = False
            self._say(f"estimate: {left(seconds)}; it comes from the first steps and is refined with each further one")
        if seconds > LONG and self._advised:
            self._advised = False
            if self._quick is None or self._question is None:
                return
            if advice := shorter(self._question, self._remaining, self._quick):
                say(f"note: {about(seconds)} are left; to make it shorter: {advice}")

    def _redraw(self) -> None:
        """Let a terminal's clock go on; not between timed runs."""
        if _UNITS[SPEED] not in self._now:
            self._screen.draw()

    def _units(self, what: str) -> str:
        """What is counted of a piece; nothing where that is not known, as of methods that change weights."""
        return _UNITS.get(what) or ("examples" if what in self._names else "")
