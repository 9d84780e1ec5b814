"""A task's score on its first examples, while the others are still to come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean

from pith.tasks.base import Calibration, Progress, Quality, Task
from pith.tasks.scoring import share_interval

FIRST = 6
"""Examples after which a score is looked at; batches may make them more."""


def tells(task: Task, quality: Quality, calibration: Calibration) -> bool:
    """Return whether a score is better than a guesser's by more than its 95 % interval; if not, losses are noise.

    Where no guess is possible any score tells.
    """
    if calibration.chance is None:
        return True
    return quality.low > calibration.chance if task.higher_is_better else quality.high < calibration.chance


class Early:
    """A progress that is given a task's score on its first examples too, once.

    Args:
        told: how many examples are done, and of how many.
        look: given the score, and how many examples there are in all.
    """

    def __init__(self, told: Progress, look: Callable[[Quality, int], None]) -> None:
        self._told, self._look, self._looked = told, look, False

    def __call__(self, done: int, total: int) -> None:
        """Tell how many examples are done."""
        self._told(done, total)

    def seen(self, done: int, total: int, quality: Callable[[], Quality]) -> None:
        """Look at the score, where enough examples are done and others are left."""
        if not self._looked and FIRST <= done < total:
            self._looked = True
            self._look(quality(), total)


def show(progress: Progress | None, done: int, total: int, quality: Callable[[], Quality]) -> None:
    """Show a task's score so far to a progress that looks at it.

    Args:
        progress: what the task was given.
        done, total: examples.
        quality: gives the score of those that are done.
    """
    if isinstance(progress, Early):
        progress.seen(done, total, quality)


def heard(
    progress: Progress | None, total: int, score: Callable[[int, str], float]
) -> Callable[[Mapping[int, str]], None]:
    """Return what shows the scores of replies to a progress, given the replies of each batch by their indices.

    Args:
        progress: what the task was given.
        total: examples.
        score: gives the score, from 0 to 1, of an example's reply.
    """
    scores: list[float] = []

    def hear(replies: Mapping[int, str]) -> None:
        if isinstance(progress, Early):
            scores.extend(score(index, reply) for index, reply in replies.items())
            progress.seen(
                len(scores), total, lambda: Quality(fmean(scores), *share_interval(scores), len(scores), tuple(scores))
            )

    return hear
