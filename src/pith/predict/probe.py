"""Timing methods on a few layers and short texts, within a number of seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from pith.attention import Retention
from pith.core import ModelError, Recipe
from pith.measure.sample import Sample
from pith.measure.seconds import DECODED, Run, ratio_of, timed_prompt
from pith.models import Loaded, Subject

RUNGS = (128, 512)
"""Short lengths that are timed before the ones asked for."""

_PAIRS = 5
_LEAST_DECODED = 4
_STEEP, _RECIPE = 1.5, 1.5
"""What a run is expected to take: of twice the length 2^1.5 times as long to read, of a recipe 1.5 times dense."""


@dataclass
class Found:
    """What was timed of one recipe, all of it as the whole model would have it.

    Attributes:
        pairs: for each length, runs of the recipe beside runs of the dense model.
        stopped: why longer texts were left, where that was not for want of time.
    """

    pairs: dict[int, list[tuple[Run, Run]]] = field(default_factory=dict)
    stopped: str | None = None

    def ratios(self, what: Callable[[Run], float]) -> dict[int, float]:
        """The median ratio to dense at each length."""
        return {
            n: ratio_of([float(what(m)) for m, _ in some], [float(what(d)) for _, d in some])[0]
            for n, some in sorted(self.pairs.items())
        }


@dataclass
class Prober:
    """Times recipes against the dense model, each at as many lengths as its part of the time allows.

    Attributes:
        loaded: the model.
        batch: sequences that are read at once.
        lengths: those asked for, ascending.
        seed: of the prompts.
        dense: every dense run, by the length.
        sample: the layers that are timed, but for methods that act around whole forwards.
    """

    loaded: Loaded
    batch: int
    lengths: Sequence[int]
    seed: int = 0
    dense: dict[int, list[Run]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model = self.loaded.model
        self.sample = Sample(model)
        self._whole = Sample(model, whole=True)
        self._tokens, self._rungs = _LEAST_DECODED, list(self.lengths)
        self._prompts: dict[int, Int[Tensor, "batch length"]] = {}

    def warm_up(self, seconds: float) -> None:
        """Runs the dense model at short lengths, and sees what there is time for.

        Args:
            seconds: what each recipe may take. Where not two of the lengths asked for fit into it, short ones are timed
                too, so that the others can follow from them.
        """
        short = [rung for rung in RUNGS if rung < self.lengths[-1]] or [self.lengths[0]]
        self._run(Recipe(), short[0], warm=True)
        for rung in short:
            self.dense[rung] = [self._run(Recipe(), rung)]
            self._tokens = min(DECODED, max(_LEAST_DECODED, int(seconds / 10 / self.dense[rung][0].decode)))
        last = short[-1]
        expected = [(1 + _RECIPE) * self._expected(Recipe(), self.dense[last][0], last, n) for n in self.lengths]
        fits = sum(sum(expected[: i + 1]) < seconds for i in range(len(expected)))
        self._rungs = sorted({*self.lengths, *(short if fits < min(2, len(self.lengths)) else ())})

    def probe(self, recipe: Recipe, end: float) -> Found:
        """Climbs from the shortest length to the longest that there is time for, then takes more pairs.

        Args:
            recipe: the recipe.
            end: when to be done, on the clock of `time.perf_counter`; one pair is taken in any case.

        Raises:
            ModelError: a method cannot take the model.
        """
        found = Found()
        for length in self._rungs:
            if found.pairs and time.perf_counter() + self._cost(found, recipe, length) > end:
                break
            try:
                if not found.pairs:
                    self._run(recipe, length, warm=True)
                self._pair(found, recipe, length)
            except (torch.OutOfMemoryError, MemoryError):
                found.stopped = f"there is not enough memory for {length} tokens"
                break
        for _ in range(_PAIRS - 1):
            for length in sorted(found.pairs, reverse=True):
                if time.perf_counter() + self._cost(found, recipe, length) < end:
                    self._pair(found, recipe, length)
        return found

    def _cost(self, found: Found, recipe: Recipe, length: int) -> float:
        """The seconds that a pair is expected to take."""
        last = max(n for n in found.pairs if n <= length)
        return sum(self._expected(recipe, run, last, length) for run in found.pairs[last][-1])

    def _expected(self, recipe: Recipe, run: Run, ran: int, length: int) -> float:
        """The seconds that a run with a recipe's layers is expected to take, where one at another length is known."""
        read: float = run.prefill * (length / ran) ** _STEEP
        return (read + self._tokens * run.decode) * self._layers_for(recipe).share

    def _layers_for(self, recipe: Recipe) -> Sample:
        """All layers, where a method acts around whole forwards of the model and may count on each."""
        retention = recipe.answer(Retention.question)
        around = isinstance(retention, Retention) and retention.companion() is not None
        return self._whole if around else self.sample

    def _pair(self, found: Found, recipe: Recipe, length: int) -> None:
        odd = len(found.pairs.get(length, ())) % 2
        first, second = (self._run(r, length, like=recipe) for r in ((Recipe(), recipe) if odd else (recipe, Recipe())))
        mine, dense = (second, first) if odd else (first, second)
        found.pairs.setdefault(length, []).append((mine, dense))
        self.dense.setdefault(length, []).append(dense)

    def _run(self, recipe: Recipe, length: int, like: Recipe | None = None, warm: bool = False) -> Run:
        subject = Subject(self.loaded.model, self.loaded.tokenizer, recipe if len(recipe) else None)
        return self._layers_for(like or recipe).run(subject, self._prompt(length), 1 if warm else self._tokens)

    def _prompt(self, length: int) -> Int[Tensor, "batch length"]:
        if length not in self._prompts:
            rows = [timed_prompt(self.loaded.tokenizer, length, self.seed + row) for row in range(self.batch)]
            self._prompts[length] = torch.cat(rows).to(self.loaded.model.device)
        return self._prompts[length]


def probe_all(
    prober: Prober, recipes: Sequence[Recipe], seconds: float, progress: Callable[[str, int, int], None] | None
) -> tuple[dict[str, Found], dict[str, str], tuple[str, ...]]:
    """Times each recipe; time that one leaves over goes to those after it.

    Returns:
        What was found, the recipes that cannot be applied and why, and those for which no time was left.
    """
    end = time.perf_counter() + seconds
    prober.warm_up(seconds / max(len(recipes), 1))
    found: dict[str, Found] = {}
    refused: dict[str, str] = {}
    late: list[str] = []
    for done, recipe in enumerate(recipes):
        now = time.perf_counter()
        if now >= end:
            late.append(str(recipe))
            continue
        try:
            taken = prober.probe(recipe, now + (end - now) / (len(recipes) - done))
        except ModelError as error:
            refused[str(recipe)] = str(error)
        else:
            if taken.pairs:
                found[str(recipe)] = taken
            else:
                refused[str(recipe)] = taken.stopped or ""
        if progress:
            progress(str(recipe), done + 1, len(recipes))
    return found, refused, tuple(late)
