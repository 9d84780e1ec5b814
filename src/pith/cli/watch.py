"""What the terminal shows while a comparison runs; all of it on stderr."""

from __future__ import annotations

from types import TracebackType

from pith.cli.command import say
from pith.cli.screen import Screen
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
        self._recipes = recipes
        self._tenth = 0  # of the answers of workers
        self._screen = Screen("recipes", recipes)

    def __enter__(self) -> TerminalWatch:
        self._screen.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._screen.stop()

    def begins(self, recipe: Recipe) -> None:
        """A recipe is about to be measured."""
        self._screen.begins(label(recipe))

    def progress(self, what: str, done: int, total: int) -> None:
        """A part of a recipe's measurement goes on."""
        self._screen.part(what, done, total)

    def answered(self, done: int, total: int) -> None:
        """Workers have answered so many of the questions that tasks ask of recipes."""
        tenth = 10 * done // total
        if tenth > self._tenth and not self._screen.is_terminal:
            say(f"{done}/{total} answers")
        self._tenth = tenth
        self._screen.part("answers", done, total)

    def has(self, study: Study, recipe: Recipe, stored: bool) -> None:
        """The study knows of one recipe more."""
        if self._screen.is_terminal and study.measurements:
            width, height = self._screen.size
            self._screen.table = rich_table(table(study), width, last=max(1, (height - 8) // 2))
        done = len(study.measurements) + len(study.refused)
        self._screen.whole(done, self._recipes)
        why = study.refused.get(str(recipe))
        if why:
            say(f"note: {label(recipe)} is left out: {why}")
        elif not self._screen.is_terminal:
            say(f"{done}/{self._recipes} {label(recipe)}: {'stored earlier' if stored else 'measured'}")
        self._screen.draw()
