"""What the terminal, or a log, shows while `pith advise` predicts and measures; all of it on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pith.cli.command import say
from pith.cli.pulse import TOLD, Pulse, left
from pith.cli.screen import Screen


class AdviceWatch:
    """Bars, with how long the rest takes; where stderr is no terminal, a line now and then.

    Args:
        start: the line that says what is predicted where; said before the first work.
    """

    def __init__(self, start: str) -> None:
        self._start, self._what, self._now, self._begun_at = start, "", "", 0.0
        self._shown: Screen | None = None

    @contextmanager
    def screen(self, what: str) -> Iterator[None]:
        """Show one part of the command, predicting or measuring."""
        self._what = self._now = what
        self._begun_at = time.monotonic()
        self._shown = Screen(what, None)
        # a terminal is drawn after each recipe only: its clock would take time from what is timed
        with self._shown, Pulse(lambda: self._now, _nothing if self._shown.is_terminal else None):
            yield

    def progress(self, what: str, done: int, total: int) -> None:
        """A recipe was predicted or measured."""
        if self._start:
            say(self._start)
        self._start = ""
        seconds = (time.monotonic() - self._begun_at) / done * (total - done) if done else 0.0
        ends = left(seconds) if self._what == "measuring" and seconds >= TOLD else ""
        self._now = f"{self._what}: {done} of {total}" + (f"; {ends}" if ends else "")
        if self._shown is not None:
            self._shown.note = ends
            self._shown.part(what, done, total)


def _nothing() -> None:
    """Draw nothing."""
