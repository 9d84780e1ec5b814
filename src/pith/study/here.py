"""Taking the pieces of measurements in this process."""

from __future__ import annotations

from dataclasses import dataclass

from pith.core import Recipe
from pith.measure import Answer, Costs, Progress, answer, costs
from pith.models import Loaded
from pith.tasks import Task


@dataclass(frozen=True)
class Here:
    """Measures with a model that this process holds.

    Attributes:
        loaded: the model.
        length: tokens of the timed prompt.
        batch_size: sequences that a task reads at once.
        seed: of the timed prompt.
        progress: told how each piece goes on.
        runs: pairs of timed runs.
    """

    loaded: Loaded
    length: int
    batch_size: int
    seed: int
    progress: Progress | None = None
    runs: int = 5

    def costs(self, recipe: Recipe) -> Costs:
        """Bytes and seconds of a recipe."""
        return costs(
            self.loaded, recipe, length=self.length, runs=self.runs, seed=self.seed, progress=self.progress
        )  # fmt: skip

    def answer(self, recipe: Recipe, task: Task) -> Answer:
        """What a task finds of a recipe."""
        return answer(self.loaded, recipe, task, batch_size=self.batch_size, progress=self.progress)
