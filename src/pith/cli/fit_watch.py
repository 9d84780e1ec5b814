"""What the terminal shows while `pith fit` searches; all of it on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich import box
from rich.table import Table
from rich.text import Text

from pith.cli.command import say
from pith.cli.screen import Screen
from pith.cli.watch import TerminalWatch
from pith.core import Recipe
from pith.core.words import bytes_
from pith.search.fit import with_front
from pith.search.sought import Tried
from pith.study import Study


class TerminalFitWatch:
    """The front and the latest recipes, over two bars; where stderr is no terminal, one line for each recipe tried.

    When the search is over, what is measured afresh is shown as a comparison is.
    """

    def __init__(self) -> None:
        self._screen = Screen("recipes tried", None)
        self._fresh: TerminalWatch | None = None

    def __enter__(self) -> TerminalFitWatch:
        self._screen.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._screen.stop()
        if self._fresh is not None:
            self._fresh.__exit__(kind, error, at)

    def progress(self, what: str, done: int, total: int) -> None:
        """A part of a trial, or of a fresh measurement, goes on."""
        (self._fresh.progress if self._fresh is not None else self._screen.part)(what, done, total)

    def tries(self, recipe: Recipe) -> None:
        """A recipe is about to be tried."""
        self._screen.begins(str(recipe))

    def has_tried(self, tried: Sequence[Tried], wanted: int) -> None:
        """Everything that was tried so far, and how many recipes are to be tried on examples."""
        done = sum(t.examples > 0 for t in tried)
        self._screen.whole(done, wanted)
        if not self._screen.is_terminal:
            say(f"{done}/{wanted} {tried[-1].recipe}: {_line(tried[-1])}")
        room = max(4, self._screen.size[1] - 8)
        front = sorted((t for t in with_front(tried) if t.on_front), key=lambda t: -(t.quality or 0))[: room // 2]
        self._screen.table = _table(front, tried[-(room - len(front)) :])
        self._screen.draw()

    def measures(self, recipes: int) -> None:
        """The search is over; so many recipes are measured afresh."""
        self._screen.stop()
        if not self._screen.is_terminal:
            say(f"measuring afresh: {recipes} recipes, the dense model among them")
        self._fresh = TerminalWatch(recipes).__enter__()

    def begins(self, recipe: Recipe) -> None:
        """A recipe is about to be measured afresh."""
        if self._fresh is not None:
            self._fresh.begins(recipe)

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
