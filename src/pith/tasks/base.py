"""The contract of a task: a way to measure a subject's quality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pith.core import Parametrised
from pith.models import Subject

Progress = Callable[[int, int], None]
"""Told how many examples are done, and of how many."""


Query = Literal["aware", "agnostic"]
"""Whether the question stands behind the context when the cache is made smaller, or comes only afterwards."""


@dataclass(frozen=True)
class Quality:
    """What a task found.

    Attributes:
        value: the score, in the task's metric.
        low, high: its 95 % confidence interval.
        n: the number of examples behind it.
        scores: each example's own score, in the order of the examples, so that two subjects can be paired.
        depths: where each example's answer stands in its context, 0 the beginning and 1 the end; empty where a task
            has no such place.
        curve: (position, score) along the text, the mean over the examples; empty where a task has no such curve.
    """

    value: float
    low: float
    high: float
    n: int
    scores: tuple[float, ...]
    depths: tuple[float, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Calibration:
    """The two scores between which a model's own must be read, through the same scorer.

    Attributes:
        oracle: of one who always knows the answer.
        chance: of one who knows the answers' form and guesses among those that it allows; None where no guess is.
    """

    oracle: float
    chance: float | None


@dataclass(frozen=True, kw_only=True)
class Task(Parametrised, ABC):
    """A way to measure a subject's quality: a value with parameters, as a method is.

    Class attributes:
        name: the word that stands for it on the command line.
        metric: what the score is called, with its unit.
        higher_is_better: whether a larger score is better.
        logarithmic: whether the score is exp(mean of the examples' scores), and not their mean.
        bounds: the least and the largest score that an example can have.
    """

    metric: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    logarithmic: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    def asks(self) -> Query | None:
        """Whether its question is seen before the cache is made smaller; None where there is no question."""
        return None

    def check_length(self, model: Any) -> None:
        """Raise an error if the model has too few positions for the task, before any text is made or encoded.

        Raises:
            InputError: the task needs more tokens than the model reads.
        """

    @abstractmethod
    def calibrate(self, tokenizer: Any) -> Calibration:
        """What an oracle and a guesser score on the same examples; nothing is run.

        Raises:
            InputError: the task cannot be made, such as a file that is not there.
        """

    @abstractmethod
    def run(self, subject: Subject, batch_size: int = 8, progress: Progress | None = None) -> Quality:
        """Measures the subject; the score does not depend on the batch size.

        Raises:
            InputError: the task cannot be done with this model, such as a length past its positions.
        """


@dataclass(frozen=True, kw_only=True)
class BatchedTask(Task):
    """A task that measures a subject one batch of examples after another, so that several subjects can take turns.

    Subjects that take turns read the same prompts one after another, which lets them share what is common to them.
    """

    @abstractmethod
    def batches(
        self, subject: Subject, batch_size: int = 8, progress: Progress | None = None
    ) -> Generator[None, None, Quality]:
        """Yield after each batch, with no recipe in force; return the score.

        Raises:
            InputError, ModelError: as `run`.
        """

    def run(self, subject: Subject, batch_size: int = 8, progress: Progress | None = None) -> Quality:
        """Measure the subject; the score does not depend on the batch size.

        Raises:
            InputError: the task cannot be done with this model, such as a length past its positions.
            ModelError: the model keeps no cache of what it has read, or its logits are not finite.
        """
        batches = self.batches(subject, batch_size, progress)
        while True:
            try:
                next(batches)
            except StopIteration as end:
                quality: Quality = end.value
                return quality
