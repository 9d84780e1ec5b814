"""A comparison: what was asked, and the loop that measures what is not stored yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pith.core import ModelError, Recipe
from pith.measure import Answer, Costs, Measurement
from pith.models import Loaded, model_hash
from pith.study.store import Store
from pith.tasks import Calibration, Task

P = TypeVar("P", Costs, Answer)


@dataclass(frozen=True)
class Question:
    """What a comparison asks.

    Attributes:
        model: the model's name, as the user gave it.
        recipes: what is compared, in this order; the dense model is the first.
        tasks: how quality is measured.
        settings: what else every result depends on, as plain data.
        costs: what bytes and seconds depend on besides, such as the length of the timed prompt.
    """

    model: str
    recipes: tuple[Recipe, ...]
    tasks: tuple[Task, ...]
    settings: Mapping[str, Any]
    costs: Mapping[str, Any] = field(default_factory=dict)

    def of(self, recipe: Recipe, task: Task | None = None) -> dict[str, Any]:
        """Everything that one piece of a recipe's measurement depends on, as plain data: a task's, or else the costs'."""
        what = {"task": str(task), "files": dict(_files(task))} if task else {"costs": dict(self.costs)}
        return {"recipe": str(recipe), **what, **self.settings}

    def key(self, recipe: Recipe, task: Task | None = None) -> str:
        """What the piece is stored under: equal for equal questions only."""
        return hashlib.sha256(json.dumps(self.of(recipe, task), sort_keys=True).encode()).hexdigest()


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
        "pith": version("pith-lm"),
    }
    return Question(loaded.name, recipes, tasks, settings, {"length": length, "seed": seed})


@dataclass(frozen=True)
class Study:
    """A question and what answers it, as far as it was found.

    Attributes:
        question: what was asked.
        measurements: by the recipe's text.
        refused: recipes that cannot be applied to the model, and why, by the recipe's text.
        calibrations: what an oracle and a guesser score, by the task's text.
    """

    question: Question
    measurements: dict[str, Measurement] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    calibrations: dict[str, Calibration] = field(default_factory=dict)


class Watch(Protocol):
    """Told how a comparison goes on; the command line shows it."""

    def begins(self, recipe: Recipe) -> None:
        """A recipe is about to be measured."""

    def has(self, study: Study, recipe: Recipe, stored: bool) -> None:
        """The study knows of one recipe more; `stored` says that an earlier run had measured it."""


class Measurer(Protocol):
    """Takes the pieces of measurements."""

    def costs(self, recipe: Recipe) -> Costs:
        """Bytes and seconds of a recipe."""

    def answer(self, recipe: Recipe, task: Task) -> Answer:
        """What a task finds of a recipe."""


def compare(question: Question, store: Store, measurer: Measurer, watch: Watch) -> Study:
    """Takes every piece that the store does not hold, and stores it at once.

    Killed at any moment and called again with the same question, it repeats nothing that was stored. A recipe that
    cannot be applied to the model is left out, with the reason.

    Raises:
        StoreError: a result cannot be read or written.
        ModelError: the dense model cannot be measured, or none of the recipes can be applied to it.
        PithError: a task cannot be done with the model.
    """
    study = Study(question)
    for recipe in question.recipes:
        text = str(recipe)
        try:
            found, stored = _whole(question, recipe, store, measurer, watch)
        except ModelError as error:
            nothing_left = len(study.refused) == len(question.recipes) - 2
            if not len(recipe) or nothing_left:
                raise
            study.refused[text], stored = str(error), False
        else:
            study.measurements[text] = found
        watch.has(study, recipe, stored)
    return study


def _whole(
    question: Question, recipe: Recipe, store: Store, measurer: Measurer, watch: Watch
) -> tuple[Measurement, bool]:
    """A recipe's measurement, and whether all of it was stored earlier."""
    begun = False

    def piece(kind: type[P], take: Callable[[], P], task: Task | None = None) -> P:
        nonlocal begun
        key = question.key(recipe, task)
        found = store.get(kind, key)
        if found is None:
            if not begun:
                watch.begins(recipe)
            begun = True
            found = take()
            store.put(key, found, question.of(recipe, task))
        return found

    costs = piece(Costs, lambda: measurer.costs(recipe))
    answers = {
        str(task): piece(Answer, lambda task=task: measurer.answer(recipe, task), task)  # type: ignore[misc]
        for task in question.tasks
    }
    return Measurement(question.model, str(recipe), costs, answers), not begun


def _files(task: Task) -> list[tuple[str, str]]:
    """The files that a task's parameters name, and what they hold: a file that was edited asks another question."""
    values = (getattr(task, p.name) for p in task.parameters())
    paths = [value for value in values if isinstance(value, str) and Path(value).is_file()]
    return [(path, hashlib.sha256(Path(path).read_bytes()).hexdigest()) for path in paths]
