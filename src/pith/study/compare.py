"""A comparison: the loop that measures what is not stored yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from pith.core import ModelError, Recipe
from pith.measure import Answer, Costs, Measurement
from pith.study.question import Question
from pith.study.store import Store
from pith.tasks import BatchedTask, Calibration, Task

P = TypeVar("P", Costs, Answer)

TOGETHER = 8
"""Recipes that take turns in a task, or in timed runs, at most: what a kill loses is what these find."""


@dataclass(frozen=True)
class Study:
    """A question and what answers it, as far as it was found.

    Attributes:
        question: what was asked.
        measurements: by the recipe's text.
        refused: recipes that cannot be applied to the model or cannot meet what was asked, and why, by the recipe's
            text.
        calibrations: what an oracle and a guesser score, by the task's text.
    """

    question: Question
    measurements: dict[str, Measurement] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    calibrations: dict[str, Calibration] = field(default_factory=dict)


class Watch(Protocol):
    """Told how a comparison goes on; the command line shows it."""

    def expects(self, question: Question, left: Sequence[tuple[Recipe, Task | None]]) -> None:
        """The pieces that are not stored yet, in the order in which they are measured: tasks, or None for the costs."""

    def prepares(self, task: Task, done: int, total: int) -> None:
        """The examples of a task are about to be made."""

    def begins(self, recipe: Recipe) -> None:
        """A recipe is about to be measured."""

    def begins_together(self, recipes: Sequence[Recipe]) -> None:
        """Several recipes are about to take turns in a task, or in timed runs."""

    def has(self, study: Study, recipe: Recipe, stored: bool) -> None:
        """The study knows of one recipe more; `stored` says that an earlier run had measured all of it."""


class Measurer(Protocol):
    """Takes the pieces of measurements."""

    def prepare(self, recipe: Recipe) -> None:
        """Changes the weights that a recipe changes, so that several workers need not."""

    def costs(self, recipe: Recipe) -> Costs:
        """Bytes and seconds of a recipe."""

    def costs_together(self, recipes: Sequence[Recipe]) -> Mapping[str, Costs | ModelError]:
        """Bytes and seconds of several recipes, or why one cannot be applied, by the recipe's text."""

    def answer(self, recipe: Recipe, task: Task) -> Answer:
        """What a task finds of a recipe."""

    def answer_together(self, recipes: Sequence[Recipe], task: BatchedTask) -> Mapping[str, Answer | ModelError]:
        """What a task finds of each of several recipes, or why it cannot be applied, by the recipe's text."""

    def calibrate(self, task: Task) -> Calibration:
        """What an oracle and a guesser score on a task."""


class Helpers(Protocol):
    """Several workers that take answers side by side."""

    def answer(self, question: Question, store: Store) -> dict[str, str]:
        """Stores every answer that is not stored yet; returns the recipes that cannot be applied, and why."""


def compare(
    question: Question,
    store: Store,
    measurer: Measurer,
    watch: Watch,
    helpers: Helpers | None = None,
    refused: Mapping[str, str] | None = None,
) -> Study:
    """Takes every piece that the store does not hold, and stores it at once.

    Killed at any moment and called again with the same question, it repeats nothing that was stored. A recipe that
    cannot be applied to the model is left out, with the reason. Helpers take the answers first. Without helpers the
    dense model answers first; then the others, up to `TOGETHER` of them, take turns in each task whose prompts they can
    share. Bytes and seconds are taken when that is done, so that nothing else that runs here disturbs the times, of up
    to `TOGETHER` recipes in the same rounds. Then each recipe is measured in what is left.

    Args:
        question: what is asked.
        store: where the pieces are kept.
        measurer: takes a piece.
        watch: told how it goes on.
        helpers: workers that take answers side by side; none leaves all to the measurer.
        refused: recipes that were left out before, and why.

    Raises:
        StoreError: a result cannot be read or written.
        ModelError: the dense model cannot be measured, or none of the recipes can be applied to it.
        PithError: a task cannot be done with the model.
    """
    study = Study(question, refused=dict(refused or {}))
    left = _left(question, store)
    watch.expects(question, left)
    for done, task in enumerate(question.tasks):
        watch.prepares(task, done, len(question.tasks))
        study.calibrations[str(task)] = measurer.calibrate(task)
    if helpers:
        found = _helped(question, store, measurer, watch, helpers)
    else:
        found = _answered(question, store, measurer, watch)
    found |= _timed(question, store, measurer, watch, found)
    for recipe in question.recipes:
        try:
            if why := found.get(str(recipe)):
                raise ModelError(why)
            study.measurements[str(recipe)] = _whole(question, recipe, store, measurer, watch)
        except ModelError as error:
            study.refused[str(recipe)] = str(error)
            if not len(recipe) or all(str(other) in study.refused for other in question.recipes if len(other)):
                raise
        watch.has(study, recipe, all(recipe != missed for missed, _ in left))
    return study


def _left(question: Question, store: Store) -> list[tuple[Recipe, Task | None]]:
    """Return the pieces that are not stored yet."""
    pieces = {question.key(r, task): (r, task) for r in question.recipes for task in (None, *question.tasks)}
    held = store.held(pieces)
    return [piece for key, piece in pieces.items() if key not in held]


def _helped(question: Question, store: Store, measurer: Measurer, watch: Watch, helpers: Helpers) -> dict[str, str]:
    """Has the answers taken; the recipes that cannot be applied, and why."""
    refused: dict[str, str] = {}
    for recipe in question.recipes:
        keys = [question.key(recipe, task) for task in question.tasks]
        if len(recipe.weights) and len(store.held(keys)) < len(keys):
            watch.begins(recipe)
            try:
                measurer.prepare(recipe)
            except ModelError as error:
                refused[str(recipe)] = str(error)
    left = tuple(recipe for recipe in question.recipes if str(recipe) not in refused)
    return refused | helpers.answer(replace(question, recipes=left), store)


def _answered(question: Question, store: Store, measurer: Measurer, watch: Watch) -> dict[str, str]:
    """Have the dense model answer, then recipes by turns where tasks allow it; those that cannot be applied, and why.

    Raises:
        ModelError: the dense model cannot be measured.
    """
    for recipe in question.recipes:
        if not len(recipe):
            taking = _Taking(question, recipe, store, measurer, watch)
            for task in question.tasks:
                taking.answer(task)
    refused: dict[str, str] = {}
    for task in question.tasks:
        if isinstance(task, BatchedTask):
            for group in _groups(question, store, task, [one for one in question.recipes if len(one.rest)], refused):
                watch.begins_together(group)
                _keep(question, store, task, measurer.answer_together(group, task), group, refused)
    return refused


def _timed(
    question: Question, store: Store, measurer: Measurer, watch: Watch, refused: Mapping[str, str]
) -> dict[str, str]:
    """Have bytes and seconds of recipes taken in the same rounds; those that cannot be applied, and why."""
    more: dict[str, str] = {}
    for group in _groups(question, store, None, question.recipes, refused):
        watch.begins_together(group)
        _keep(question, store, None, measurer.costs_together(group), group, more)
    return more


def _keep(
    question: Question,
    store: Store,
    task: Task | None,
    found: Mapping[str, Costs | ModelError] | Mapping[str, Answer | ModelError],
    group: Sequence[Recipe],
    refused: dict[str, str],
) -> None:
    """Store what was found of each recipe of a group, or note why it cannot be applied."""
    for recipe in group:
        result = found[str(recipe)]
        if isinstance(result, ModelError):
            refused[str(recipe)] = str(result)
        else:
            store.put(question.key(recipe, task), result, question.of(recipe, task))


def _groups(
    question: Question, store: Store, task: Task | None, recipes: Sequence[Recipe], refused: Mapping[str, str]
) -> Iterator[list[Recipe]]:
    """Yield recipes that can take turns in a task, or in timed runs: two or more that change weights alike."""
    alike: dict[str, list[Recipe]] = {}
    for recipe in recipes:
        if str(recipe) not in refused:
            alike.setdefault(str(recipe.weights), []).append(recipe)
    for some in alike.values():
        held = store.held([question.key(recipe, task) for recipe in some])
        left = [recipe for recipe in some if question.key(recipe, task) not in held]
        for start in range(0, len(left), TOGETHER):
            group = left[start : start + TOGETHER]
            if len(group) > 1:
                yield group


class _Taking:
    """Takes the pieces of a recipe's measurement that are not stored yet, and stores them at once."""

    def __init__(self, question: Question, recipe: Recipe, store: Store, measurer: Measurer, watch: Watch) -> None:
        self._question, self._recipe, self._store = question, recipe, store
        self._measurer, self._watch = measurer, watch
        self._begun = False

    def costs(self) -> Costs:
        """Bytes and seconds."""
        return self._piece(Costs, lambda: self._measurer.costs(self._recipe))

    def answer(self, task: Task) -> Answer:
        """What a task finds."""
        return self._piece(Answer, lambda: self._measurer.answer(self._recipe, task), task)

    def _piece(self, kind: type[P], take: Callable[[], P], task: Task | None = None) -> P:
        key = self._question.key(self._recipe, task)
        found = self._store.get(kind, key, task.bounds) if task else self._store.get(kind, key)
        if found is None:
            if not self._begun:
                self._watch.begins(self._recipe)
            self._begun = True
            found = take()
            self._store.put(key, found, self._question.of(self._recipe, task))
        return found


def _whole(question: Question, recipe: Recipe, store: Store, measurer: Measurer, watch: Watch) -> Measurement:
    """Return a recipe's measurement."""
    taking = _Taking(question, recipe, store, measurer, watch)
    costs = taking.costs()
    answers = {str(task): taking.answer(task) for task in question.tasks}
    return Measurement(question.model, str(recipe), costs, answers)
