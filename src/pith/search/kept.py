"""How much of the dense model's score a recipe keeps, as one number for any task."""

from __future__ import annotations

import math
import warnings

from pith.core import InputError, PithWarning
from pith.core.words import digits
from pith.tasks import Calibration, Quality, Task
from pith.tasks.early import tells
from pith.tasks.paired import paired


def kept(task: Task, mine: Quality, dense: Quality, calibration: Calibration) -> float:
    """The share of the dense model's score that is kept; 1 is as good, and more is better than dense.

        (recipe - chance) / (dense - chance)      where higher is better; chance is 0 where no guess is
        dense / recipe                            where lower is better, such as perplexity

    Where higher is better, a recipe that guesses keeps 0, and one that does worse no less.
    """
    return _share(task, mine.value, dense.value, calibration)


def could_keep(task: Task, mine: Quality, dense: Quality, calibration: Calibration) -> float:
    """The share that is kept at the favourable end of the 95 % interval of the paired differences."""
    found = paired(mine, dense, task)
    best = found.high if task.higher_is_better else found.low
    return _share(task, dense.value * best if task.logarithmic else dense.value + best, dense.value, calibration)


def require_telling(task: Task, dense: Quality, calibration: Calibration) -> None:
    """Raise an error for a task on which the dense model is no better than a guesser: no share of its score means
    anything. Warn of one where its interval reaches down to chance.

    Raises:
        InputError: it is not.
    """
    chance = calibration.chance if calibration.chance is not None else 0.0 if task.higher_is_better else math.inf
    if dense.value <= chance if task.higher_is_better else not dense.value < chance:
        raise InputError(
            f"{task} tells nothing here: the dense model scores {digits(dense.value)} and chance {digits(chance)}; "
            "name another task, a shorter --length, or --chat"
        )
    if not tells(task, dense, calibration):
        warnings.warn(
            f"{task} tells little here: the dense model's {digits(dense.value)} ({digits(dense.low)} to "
            f"{digits(dense.high)}) cannot be told from chance ({digits(chance)}) by {dense.n} examples; use a larger "
            "--count, a shorter --length, or --chat",
            PithWarning,
            stacklevel=3,
        )


def _share(task: Task, mine: float, dense: float, calibration: Calibration) -> float:
    if not math.isfinite(mine):
        return 0.0
    if not task.higher_is_better:
        return dense / mine if mine > 0 else math.inf
    chance = calibration.chance or 0.0
    return max(mine - chance, 0.0) / (dense - chance)
