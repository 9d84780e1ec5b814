"""The contract of a task: a way to measure a subject's quality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pith.core import Parametrised
from pith.models import Subject

Progress = Callable[[int, int], None]
"""Told how many examples are done, and of how many."""


@dataclass(frozen=True)
class Quality:
    """What a task found.

    Attributes:
        value: the score, in the task's metric.
        low, high: its 95 % confidence interval.
        n: the number of examples behind it.
        scores: each example's own score, in the order of the examples, so that two subjects can be paired.
    """

    value: float
    low: float
    high: float
    n: int
    scores: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Task(Parametrised, ABC):
    """A way to measure a subject's quality: a value with parameters, as a method is.

    Class attributes:
        name: the word that stands for it on the command line.
        metric: what the score is called, with its unit.
        higher_is_better: whether a larger score is better.
    """

    metric: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True

    @abstractmethod
    def run(self, subject: Subject, batch_size: int = 8, progress: Progress | None = None) -> Quality:
        """Measures the subject; the score does not depend on the batch size.

        Raises:
            InputError: the task cannot be done with this model, such as a length past its positions.
        """
