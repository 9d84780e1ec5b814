"""What keeps a log alive while long work runs: a line now and then, and how long the rest takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from pith.cli.command import say

FIRST, EVERY = 10.0, 30.0
"""Seconds of silence after which a log gets its first line, and each further one."""

TOLD = 15.0
"""Seconds of an estimate below which a log needs none."""

REDRAWN = 2.0
"""Seconds between two looks of a terminal at the clock."""


class Pulse:
    """Say a line whenever nothing has been said for some time; on a terminal, redraw.

    It runs in a thread of its own, which sleeps: what is timed meanwhile is not disturbed.

    Args:
        line: gives the line; an empty one is not said.
        redraw: called every two seconds instead, where stderr is a terminal.
    """

    def __init__(self, line: Callable[[], str], redraw: Callable[[], None] | None = None) -> None:
        self._line, self._redraw = line, redraw
        self._over = threading.Event()
        self._due = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Pulse:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to look at the clock."""
        self._due = time.monotonic() + FIRST
        self._thread.start()

    def stop(self) -> None:
        """End; nothing is said any more when this returns."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def said(self) -> None:
        """Note that a line was just said, so that the next one can wait."""
        self._due = time.monotonic() + EVERY

    def _run(self) -> None:
        while not self._over.wait(self._wait()):
            if self._redraw is not None:
                self._redraw()
            elif time.monotonic() >= self._due:
                self.said()
                if line := self._line():
                    say(line)

    def _wait(self) -> float:
        return REDRAWN if self._redraw is not None else max(self._due - time.monotonic(), 0.01)


def about(seconds: float) -> str:
    """Return a time that is only estimated, in words: "about 40 seconds", "about 6 minutes", "about 2.5 hours"."""
    if seconds < 55:
        return f"about {max(10 * round(seconds / 10), 5)} seconds"
    if seconds < 90:
        return "about a minute"
    if seconds < 5400:
        return f"about {round(seconds / 60)} minutes"
    return f"about {seconds / 3600:.1f} hours"


def left(seconds: float) -> str:
    """Return how long the rest takes and when it ends: "about 6 minutes left, until about 14:32"."""
    ends = time.strftime("%H:%M", time.localtime(time.time() + seconds))
    return f"{about(seconds)} left" + (f", until about {ends}" if seconds >= 90 else "")
