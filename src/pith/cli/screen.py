"""What long work shows on stderr: a table that grows, over two bars."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text


class Screen:
    """A table over a bar for the whole work and one for the part in hand; shown only where stderr is a terminal.

    Args:
        what: what the whole work consists of.
        total: of how many; None where that is not known yet.

    Attributes:
        table: what is shown over the bars.
        note: a line below them, such as how long the rest takes.
    """

    def __init__(self, what: str, total: int | None) -> None:
        self.table: Table | None = None
        self.note = ""
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._overall = self._bars.add_task(what, total=total)
        self._stage = self._bars.add_task("", total=None, visible=False)
        # drawn between two timed runs, never by a clock of its own: that would take time from what is timed
        self._live = Live(console=self._console, transient=True, auto_refresh=False)

    @property
    def is_terminal(self) -> bool:
        """Whether anything is drawn; where not, a line at a time tells how it goes on."""
        return self._console.is_terminal

    @property
    def size(self) -> tuple[int, int]:
        """The terminal's columns and lines."""
        return self._console.width, self._console.height

    def __enter__(self) -> Screen:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Begins to draw."""
        if self.is_terminal:
            self._live.start()

    def stop(self) -> None:
        """Wipes what was drawn."""
        self._live.stop()

    def begins(self, description: str) -> None:
        """The next part of the whole begins."""
        self._bars.update(self._overall, description=description)
        self._bars.update(self._stage, description="", total=None, visible=False)
        self.draw()

    def part(self, description: str, done: int, total: int) -> None:
        """The part in hand goes on."""
        self._bars.update(self._stage, description=f"  {description}", completed=done, total=total, visible=True)
        self.draw()

    def whole(self, done: int, total: int) -> None:
        """So much of the whole is done, of how much."""
        self._bars.update(self._overall, completed=done, total=total)

    def draw(self) -> None:
        """Shows what is known now."""
        if self._live.is_started:
            shown = [self.table] if self.table else []
            below = [Text(self.note, style="dim")] if self.note else []
            self._live.update(Group(*shown, self._bars, *below), refresh=True)
