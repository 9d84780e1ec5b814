"""The results of a comparison as rows, from which every table, chart and sentence is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pith.core import Method, Recipe
from pith.measure import Measurement
from pith.study import Study
from pith.tasks import Quality, Task
from pith.tasks.paired import Difference, paired


@dataclass(frozen=True)
class Row:
    """One recipe's result beside the dense model's.

    Attributes:
        recipe: the recipe; the one without a method is the dense model.
        measurement, dense: what it did, and what the dense model did.
        comparisons: with the dense model, over all recipes and tasks; intervals of differences are corrected for them.
        weighs: whether weights count among the bytes: some recipe of the comparison changes them.
    """

    recipe: Recipe
    measurement: Measurement
    dense: Measurement
    comparisons: int = 1
    weighs: bool = False

    @property
    def is_dense(self) -> bool:
        """Whether it is the dense model itself."""
        return not len(self.recipe)

    @cached_property
    def label(self) -> str:
        """The recipe as people read it; see `label`."""
        return label(self.recipe)

    @cached_property
    def series(self) -> str:
        """The recipe without its budgets, and without what it turns of weights: what a line in a chart joins."""
        return " + ".join(_text(method, with_budget=False) for method in self.recipe) or str(self.recipe)

    @property
    def budgets(self) -> tuple[object, ...]:
        """The budgets of the recipe's methods, and of the methods in them."""
        return tuple(getattr(m, p.name) for m in each(self.recipe) for p in m.parameters() if p.name == "budget")

    @cached_property
    def families(self) -> tuple[str, ...]:
        """The contracts of the recipe's methods, and of the methods in them, each once."""
        return tuple(dict.fromkeys(method.contract for method in each(self.recipe)))

    @property
    def cache_share(self) -> float:
        """The share of the dense cache that is really held after the prompt."""
        return self.measurement.bytes.measured

    @property
    def weights_share(self) -> float:
        """The share of the dense model's weights that is really held."""
        return self.measurement.costs.memory.share

    @property
    def held(self) -> int:
        """The bytes that count: of the cache after the prompt, and of the weights where some recipe changes them."""
        return self.measurement.bytes.prefill + (self.measurement.costs.memory.weights if self.weighs else 0)

    @property
    def share(self) -> float:
        """The share of the dense model's bytes that is held, of those that count."""
        return self.held / self.dense_held

    @property
    def dense_held(self) -> int:
        """What the dense model holds of the bytes that count, in the runs beside this recipe's."""
        memory = self.measurement.costs.memory
        return self.measurement.bytes.dense_prefill + (memory.dense_weights or memory.weights if self.weighs else 0)

    @property
    def is_noisy(self) -> bool:
        """Whether the decode times vary too much for their ratio to tell anything; not where nothing was timed."""
        return self.measurement.speed is not None and not self.measurement.speed.decode_tells

    @property
    def decode_ratio(self) -> float | None:
        """A decoded token's time as a ratio to the dense model's; None where nothing was timed."""
        return self.measurement.speed.decode_ratio if self.measurement.speed else None

    def quality(self, task: Task) -> Quality:
        """What the task found."""
        return self.measurement.quality[str(task)]

    def difference(self, task: Task) -> Difference:
        """How far the score is from the dense model's, example by example."""
        found = self._differences.get(str(task))
        if found is None:
            found = paired(self.quality(task), self.dense.quality[str(task)], task, self.comparisons)
            self._differences[str(task)] = found
        return found

    def keeps(self, task: Task) -> bool:
        """Whether no loss against the dense model can be told."""
        return self.difference(task).verdict != "worse"

    @cached_property
    def _differences(self) -> dict[str, Difference]:
        return {}


def rows(study: Study) -> list[Row]:
    """A row for each measurement that there is, in the order asked; the dense model is the first."""
    done, asked = study.measurements, study.question
    dense = done.get(str(Recipe()))
    number, weighs = comparisons(study), any(len(recipe.weights) for recipe in asked.recipes)
    return [
        Row(recipe, done[str(recipe)], dense, number, weighs)
        for recipe in asked.recipes
        if dense and str(recipe) in done
    ]


def comparisons(study: Study) -> int:
    """How many differences to the dense model stand in the study: recipes that can be applied, times tasks."""
    asked = study.question
    recipes = sum(len(recipe) > 0 and str(recipe) not in study.refused for recipe in asked.recipes)
    return max(1, recipes * len(asked.tasks))


def counted(rows: Sequence[Row]) -> str:
    """What the bytes are that count."""
    return "weights and cache" if any(row.weighs for row in rows) else "cache"


def each(methods: Iterable[Method]) -> Iterator[Method]:
    """The methods and those in them, the outer ones first."""
    for method in methods:
        yield method
        yield from each(v for p in method.parameters() if isinstance(v := getattr(method, p.name), Method))


def label(recipe: Recipe) -> str:
    """The recipe as people read it: with what decides what it saves, a budget or bits, also at its default."""
    return " + ".join(_text(method, with_budget=True) for method in recipe) or str(recipe)


def _text(method: Method, with_budget: bool) -> str:
    """The method with what differs from its defaults, and its budgets or not; a method in it stands first."""
    first = next((p.name for p in method.parameters() if p.takes), None)
    # what weights are turned by has a name of its own in each method: bits, sparsity, blocks that are dropped
    turned = next((p.name for p in method.parameters() if p.sweep), None) if method.order == 0 else "budget"
    words = []
    for p in method.parameters():
        value = getattr(method, p.name)
        shown = with_budget if p.name == turned else value != p.default
        if isinstance(value, Method):
            text = _text(value, with_budget)
            words.append(text if p.name == first else f"{p.name}={text}")
        elif shown:
            words.append(f"{p.name}={value!r}")
    return method.name + (f"({', '.join(words)})" if words else "")
