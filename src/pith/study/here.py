"""Taking the pieces of measurements in this process, or telling another one how to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pith.core import ModelError, Recipe
from pith.core.notes import noted
from pith.measure import Answer, Costs, Progress, answer, answer_together, costs, costs_together
from pith.measure.seconds import RUNS
from pith.models import Loaded, load, model_hash
from pith.models.locate import is_local
from pith.models.smaller import smaller
from pith.study.telling import Telling
from pith.tasks import BatchedTask, Calibration, Task
from pith.weights import Source


@dataclass(frozen=True)
class Here:
    """Measures with a model that this process holds.

    Attributes:
        loaded: the model.
        length: tokens of the timed prompt.
        batch_size: sequences that a task reads at once.
        seed: of the timed prompt.
        progress: told how each piece goes on.
        runs: pairs of timed runs; 0 times nothing.
        peak: whether to look for the peak of memory too.
        telling: says which tasks the dense model cannot do; None says nothing.
    """

    loaded: Loaded
    length: int
    batch_size: int
    seed: int
    progress: Progress | None = None
    runs: int = RUNS
    peak: bool = False
    telling: Telling | None = None
    _calibrations: dict[str, Calibration] = field(default_factory=dict, repr=False)

    def costs(self, recipe: Recipe) -> Costs:
        """Bytes and seconds of a recipe."""
        return costs(
            self.loaded, recipe, length=self.length, runs=self.runs, seed=self.seed, peak=self.peak,
            progress=self.progress,
        )  # fmt: skip

    def costs_together(self, recipes: Sequence[Recipe]) -> dict[str, Costs | ModelError]:
        """Bytes and seconds of recipes that are timed in the same rounds, or why not, by their texts."""
        return costs_together(
            self.loaded, recipes, length=self.length, runs=self.runs, seed=self.seed, peak=self.peak,
            progress=self.progress,
        )  # fmt: skip

    def answer(self, recipe: Recipe, task: Task) -> Answer:
        """What a task finds of a recipe."""
        if len(recipe) or self.telling is None:
            return answer(self.loaded, recipe, task, batch_size=self.batch_size, progress=self.progress)
        early, final = (partial(f, task, self.calibrate(task)) for f in (self.telling.early, self.telling.final))
        found = answer(self.loaded, recipe, task, batch_size=self.batch_size, progress=self.progress, early=early)
        final(found.quality)
        return found

    def answer_together(self, recipes: Sequence[Recipe], task: BatchedTask) -> dict[str, Answer | ModelError]:
        """What a task finds of recipes that share what is common to them, or why not, by their texts."""
        told = partial(self.progress, str(task)) if self.progress else None
        return answer_together(self.loaded, recipes, task, batch_size=self.batch_size, progress=told)

    def calibrate(self, task: Task) -> Calibration:
        """What an oracle and a guesser score on a task.

        Raises:
            InputError: the task needs more tokens than the model reads, or cannot be made.
        """
        if str(task) not in self._calibrations:
            task.check_length(self.loaded.model)  # making examples of a length that no model reads may take minutes
            self._calibrations[str(task)] = task.calibrate(self.loaded.tokenizer)
        return self._calibrations[str(task)]

    def prepare(self, recipe: Recipe) -> None:
        """Makes the model with a recipe's weights, and keeps it where the others find it."""
        with noted():  # what is warned of stands beside each result
            smaller(self.loaded, recipe, self.progress)

    def elsewhere(self) -> Elsewhere:
        """What makes another process measure with the same model."""
        name, model = self.loaded.name, self.loaded.model
        path = str(Path(name).absolute()) if is_local(name) else name
        source, kept = self.loaded.source, self.loaded.kept
        return Elsewhere(
            path, str(model.dtype), str(model.device), model_hash(model), self.batch_size, source,
            kept.absolute() if kept else None, self.loaded.dtype_reason,
        )  # fmt: skip


@dataclass(frozen=True)
class Elsewhere:
    """Loads the same model in another process, which takes the answers of tasks with it.

    Attributes:
        name, dtype, device: as for `pith.models.load`.
        weights: the hash that the loaded model must have.
        batch_size: sequences that a task reads at once.
        source, kept, dtype_reason: as of `Loaded`.
    """

    name: str
    dtype: str
    device: str
    weights: str
    batch_size: int
    source: Source = field(default_factory=Source)
    kept: Path | None = None
    dtype_reason: str = ""

    def __call__(self) -> Here:
        """Loads the model.

        Raises:
            ModelError: it cannot be loaded, or is another one.
        """
        loaded = replace(
            load(self.name, self.dtype, self.device),
            source=self.source,
            kept=self.kept,
            dtype_reason=self.dtype_reason,  # the dtype is that of the process that asks, whose reason counts
        )
        found = model_hash(loaded.model)
        if found != self.weights:
            raise ModelError(f"{self.name!r} is another model for a worker: its hash is {found}, not {self.weights}")
        telling = Telling(loaded, _say, self.batch_size)
        return Here(loaded, length=1, batch_size=self.batch_size, seed=0, telling=telling)


def _say(line: str) -> None:
    """Say a line on stderr: a worker's warnings reach nobody."""
    print(line, file=sys.stderr, flush=True)
