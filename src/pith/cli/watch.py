"""What the terminal shows while a comparison runs; all of it on stderr."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pith.cli.command import say
from pith.cli.show import rich_table
from pith.core import Recipe
from pith.report import label, table
from pith.study import Study


class TerminalWatch:
    """A table that grows, over two bars; where stderr is no terminal, one line for each recipe.

    Args:
        recipes: how many there are.
    """

    def __init__(self, recipes: int) -> None:
        self._console = Console(stderr=True)
        self._recipes = recipes
        self._table: Table | None = None
        self._tenth = 0  # of the answers of workers
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._overall = self._bars.add_task("recipes", total=recipes)
        self._stage = self._bars.add_task("", total=None, visible=False)
        # drawn between two timed runs, never by a clock of its own: that would take time from what is timed
        self._live = Live(console=self._console, transient=True, auto_refresh=False)

    def __enter__(self) -> TerminalWatch:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def begins(self, recipe: Recipe) -> None:
        """A recipe is about to be measured."""
        self._bars.update(self._overall, description=label(recipe))
        self._bars.update(self._stage, description="", total=None, visible=False)
        self._draw()

    def progress(self, what: str, done: int, total: int) -> None:
        """A part of a recipe's measurement goes on."""
        self._bars.update(self._stage, description=f"  {what}", completed=done, total=total, visible=True)
        self._draw()

    def answered(self, done: int, total: int) -> None:
        """Workers have answered so many of the questions that tasks ask of recipes."""
        self._bars.update(self._stage, description="  answers", completed=done, total=total, visible=True)
        tenth = 10 * done // total
        if tenth > self._tenth and not self._console.is_terminal:
            say(f"{done}/{total} answers")
        self._tenth = tenth
        self._draw()

    def has(self, study: Study, recipe: Recipe, stored: bool) -> None:
        """The study knows of one recipe more."""
        if self._live.is_started and study.measurements:
            room = max(1, (self._console.height - 8) // 2)
            self._table = rich_table(table(study), self._console.width, last=room)
        done = len(study.measurements) + len(study.refused)
        self._bars.update(self._overall, completed=done)
        why = study.refused.get(str(recipe))
        if why:
            say(f"note: {label(recipe)} is left out: {why}")
        elif not self._console.is_terminal:
            say(f"{done}/{self._recipes} {label(recipe)}: {'stored earlier' if stored else 'measured'}")
        self._draw()

    def _draw(self) -> None:
        if self._live.is_started:
            shown = [self._table] if self._table else []
            self._live.update(Group(*shown, self._bars), refresh=True)
