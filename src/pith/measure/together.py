"""What a task finds of several recipes that take turns, batch by batch, so that each prompt is read once for all."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pith.attention import sharing_prompts
from pith.core import InputError, ModelError, Recipe
from pith.core.notes import noted
from pith.measure.environment import environment
from pith.measure.measurement import Answer
from pith.models import Loaded
from pith.models.smaller import subject
from pith.tasks import BatchedTask, Progress, Quality


def answer_together(
    loaded: Loaded,
    recipes: Sequence[Recipe],
    task: BatchedTask,
    *,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> dict[str, Answer | ModelError]:
    """Return what a task finds of each recipe, by its text: the same as `answer` finds, in less time.

    A batch is read under one recipe after another before the next batch begins. Recipes that act behind a prompt's
    attention share one reading of it (see `sharing_prompts`).

    Args:
        loaded: the model.
        recipes: different recipes that change weights in the same way, or not at all.
        task: how quality is measured.
        batch_size: sequences that the task reads at once; no score depends on it.
        progress: told how many examples are done, over all recipes, and of how many.

    Raises:
        InputError: the batch size is not allowed, or the task cannot be done with the model.

    A ModelError of one recipe, such as a model that its method cannot take, is the result for this recipe alone.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1 (got {batch_size})")
    turns = {str(recipe): _Turn(loaded, recipe, task, batch_size) for recipe in recipes}
    found: dict[str, Answer | ModelError] = {}
    with sharing_prompts():
        while len(found) < len(turns):
            for name, turn in turns.items():
                if name in found:
                    continue
                try:
                    ended = turn.take()
                except ModelError as error:
                    found[name] = error
                    continue
                if ended is not None:
                    where = environment(loaded.model, {"batch_size": batch_size}, loaded.dtype_reason)
                    found[name] = Answer(ended, tuple(turn.notes), where)
                elif progress:
                    progress(sum(one.done for one in turns.values()), sum(one.total for one in turns.values()))
    return found


class _Turn:
    """One recipe's part in a task.

    Attributes:
        notes: the texts of what was warned of.
        done, total: examples.
    """

    def __init__(self, loaded: Loaded, recipe: Recipe, task: BatchedTask, batch_size: int) -> None:
        self.notes: list[str] = []
        self.done, self.total = 0, getattr(task, "count", None) or 1
        self._batches: Generator[None, None, Quality] | None = None

        def begin() -> Generator[None, None, Quality]:
            return task.batches(subject(loaded, recipe), batch_size, self._count)

        self._begin = begin

    def take(self) -> Quality | None:
        """Read the next batch; the score, if it was the last one.

        Raises:
            ModelError: the recipe's methods cannot take the model.
        """
        with noted() as notes:
            if self._batches is None:
                self._batches = self._begin()
            ended: Quality | None = None
            try:
                next(self._batches)
            except StopIteration as end:
                ended = end.value
        self.notes += [note for note in notes if note not in self.notes]
        return ended

    def _count(self, done: int, total: int) -> None:
        self.done, self.total = done, total
