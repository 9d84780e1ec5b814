"""The results of a comparison as rows, from which every table, chart and sentence is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pith.core import Method, Recipe
from pith.measure import Measurement
from pith.study import Study
from pith.tasks import Quality, Task

NOISY = 0.25
"""A decode ratio is too noisy to trust when a pair of runs lies further from the median than this share of it."""


@dataclass(frozen=True)
class Row:
    """One recipe's result beside the dense model's.

    Attributes:
        recipe: the recipe; the one without a method is the dense model.
        measurement, dense: what it did, and what the dense model did.
    """

    recipe: Recipe
    measurement: Measurement
    dense: Measurement

    @property
    def is_dense(self) -> bool:
        """Whether it is the dense model itself."""
        return not len(self.recipe)

    @cached_property
    def label(self) -> str:
        """The recipe as people read it: with its budgets, also where they are the default ones."""
        return label(self.recipe)

    @cached_property
    def series(self) -> str:
        """The recipe without its budgets: what a line in a chart joins."""
        return " + ".join(_text(method, with_budget=False) for method in self.recipe) or str(self.recipe)

    @property
    def budgets(self) -> tuple[object, ...]:
        """The budgets of the recipe's methods, and of the methods in them."""
        return tuple(budget for method in self.recipe for budget in _budgets(method))

    @property
    def share(self) -> float:
        """The share of the dense cache that is really held after the prompt."""
        return self.measurement.bytes.measured

    @property
    def is_noisy(self) -> bool:
        """Whether the decode times vary too much to trust their ratio."""
        return self.measurement.speed.spread > NOISY

    def quality(self, task: Task) -> Quality:
        """What the task found."""
        return self.measurement.quality[str(task)]

    def keeps(self, task: Task) -> bool:
        """Whether the score is within the dense model's 95% interval, or better."""
        mine, dense = self.quality(task), self.dense.quality[str(task)]
        return mine.value >= dense.low if task.higher_is_better else mine.value <= dense.high


def rows(study: Study) -> list[Row]:
    """A row for each measurement that there is, in the order asked; the dense model is the first."""
    done = study.measurements
    dense = done.get(str(Recipe()))
    return [Row(recipe, done[str(recipe)], dense) for recipe in study.question.recipes if dense and str(recipe) in done]


def label(recipe: Recipe) -> str:
    """The recipe as people read it: with its budgets, also where they are the default ones."""
    return " + ".join(_text(method, with_budget=True) for method in recipe) or str(recipe)


def _text(method: Method, with_budget: bool) -> str:
    """The method with what differs from its defaults, and its budgets or not; a method in it stands first."""
    first = next((p.name for p in method.parameters() if p.takes), None)
    words = []
    for p in method.parameters():
        value = getattr(method, p.name)
        shown = with_budget if p.name == "budget" else value != p.default
        if isinstance(value, Method):
            text = _text(value, with_budget)
            words.append(text if p.name == first else f"{p.name}={text}")
        elif shown:
            words.append(f"{p.name}={value!r}")
    return method.name + (f"({', '.join(words)})" if words else "")


def _budgets(method: Method) -> Iterator[object]:
    for p in method.parameters():
        value = getattr(method, p.name)
        if p.name == "budget":
            yield value
        elif isinstance(value, Method):
            yield from _budgets(value)
