"""A comparison: what was asked, and the loop that measures what is not stored yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from pith.core import ModelError, Recipe
from pith.measure import Measurement
from pith.models import Loaded, model_hash
from pith.study.store import Store
from pith.tasks import Task


@dataclass(frozen=True)
class Question:
    """What a comparison asks.

    Attributes:
        model: the model's name, as the user gave it.
        recipes: what is compared, in this order; the dense model is the first.
        tasks: how quality is measured.
        settings: what else a result depends on, as plain data.
    """

    model: str
    recipes: tuple[Recipe, ...]
    tasks: tuple[Task, ...]
    settings: Mapping[str, Any]

    def of(self, recipe: Recipe) -> dict[str, Any]:
        """Everything that is asked of one recipe, as plain data."""
        files = {path: hash_ for task in self.tasks for path, hash_ in _files(task)}
        return {"recipe": str(recipe), "tasks": sorted(map(str, self.tasks)), "files": files, **self.settings}

    def key(self, recipe: Recipe) -> str:
        """What a recipe's measurement is stored under: equal for equal questions only."""
        return hashlib.sha256(json.dumps(self.of(recipe), sort_keys=True).encode()).hexdigest()


def ask(loaded: Loaded, recipes: tuple[Recipe, ...], tasks: tuple[Task, ...], *, length: int, seed: int) -> Question:
    """The question what recipes do to a loaded model.

    Args:
        loaded: the model; its weights are hashed, its name plays no part.
        recipes: what is compared, the dense model first, as `grid` gives them.
        tasks: how quality is measured.
        length: tokens of the prompt that is timed and whose cache is weighed.
        seed: of that prompt; tasks have their own.
    """
    settings = {
        "model": model_hash(loaded.model),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "device": str(loaded.model.device),
        "length": length,
        "seed": seed,
        "pith": version("pith-lm"),
    }
    return Question(loaded.name, recipes, tasks, settings)


@dataclass(frozen=True)
class Study:
    """A question and what answers it, as far as it was found.

    Attributes:
        question: what was asked.
        measurements: by the recipe's text.
        refused: recipes that cannot be applied to the model, and why, by the recipe's text.
    """

    question: Question
    measurements: dict[str, Measurement] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class Watch(Protocol):
    """Told how a comparison goes on; the command line shows it."""

    def begins(self, recipe: Recipe) -> None:
        """A recipe is about to be measured."""

    def has(self, study: Study, recipe: Recipe, stored: bool) -> None:
        """The study knows of one recipe more; `stored` says that an earlier run had measured it."""


def compare(question: Question, store: Store, measure: Callable[[Recipe], Measurement], watch: Watch) -> Study:
    """Measures every recipe that the store does not hold, and stores each result at once.

    Killed at any moment and called again with the same question, it repeats nothing that was stored. A recipe that
    cannot be applied to the model is left out, with the reason.

    Raises:
        StoreError: a result cannot be read or written.
        ModelError: the dense model cannot be measured, or none of the recipes can be applied to it.
        PithError: a task cannot be done with the model.
    """
    study = Study(question)
    for recipe in question.recipes:
        key, text = question.key(recipe), str(recipe)
        found = store.get(key)
        stored = found is not None
        if found is None:
            watch.begins(recipe)
            try:
                found = measure(recipe)
            except ModelError as error:
                nothing_left = len(study.refused) == len(question.recipes) - 2
                if not len(recipe) or nothing_left:
                    raise
                study.refused[text] = str(error)
            else:
                store.put(key, found, question.of(recipe))
        if found is not None:
            study.measurements[text] = found
        watch.has(study, recipe, stored)
    return study


def _files(task: Task) -> list[tuple[str, str]]:
    """The files that a task's parameters name, and what they hold: a file that was edited asks another question."""
    values = (getattr(task, p.name) for p in task.parameters())
    paths = [value for value in values if isinstance(value, str) and Path(value).is_file()]
    return [(path, hashlib.sha256(Path(path).read_bytes()).hexdigest()) for path in paths]
