"""Taking one measurement, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pith.core import InputError, Recipe
from pith.core.notes import noted
from pith.measure.cost import Progress, costs, told_of
from pith.measure.environment import environment
from pith.measure.measurement import Answer, Measurement
from pith.measure.seconds import RUNS
from pith.models import Loaded
from pith.models.smaller import subject
from pith.tasks import Quality, Task
from pith.tasks.early import Early


def measure(
    loaded: Loaded,
    recipe: Recipe,
    tasks: Sequence[Task] = (),
    *,
    length: int = 1024,
    batch_size: int = 8,
    runs: int = RUNS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measurement:
    """Measures what a recipe does to a model: its costs and, by every task, its quality.

    Args, raises: as of `costs` and `answer`.
    """
    found = costs(loaded, recipe, length=length, runs=runs, seed=seed, progress=progress)
    answers = {str(task): answer(loaded, recipe, task, batch_size=batch_size, progress=progress) for task in tasks}
    return Measurement(loaded.name, str(recipe), found, answers)


def answer(
    loaded: Loaded,
    recipe: Recipe,
    task: Task,
    *,
    batch_size: int = 8,
    progress: Progress | None = None,
    early: Callable[[Quality, int], None] | None = None,
) -> Answer:
    """What a task finds of a recipe.

    Args:
        loaded: the model.
        recipe: the recipe.
        task: how quality is measured.
        batch_size: sequences that the task reads at once; no score depends on it.
        progress: told how it goes on.
        early: given the score of the first few examples, and how many there are in all, while the others are still to
            come; not called where there are only a few.

    Raises:
        InputError: the batch size makes no sense, or the task is too long for the model.
        ModelError: a method cannot take the model.
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} makes no sense; allowed is 1 or more")
    told = told_of(progress, str(task))
    with noted() as notes:
        examined = subject(loaded, recipe, progress)
        told(0, getattr(task, "count", None) or 1)  # it is in hand, long before its first examples are done
        quality = task.run(examined, batch_size, Early(told, early) if early else told)
    return Answer(quality, tuple(notes), environment(loaded.model, {"batch_size": batch_size}, loaded.dtype_reason))
