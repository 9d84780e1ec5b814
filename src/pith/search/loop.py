"""The search behind `pith fit`: recipes are proposed, weighed, tried on few examples, timed, and tried on all."""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, Protocol

from pith.core import Method, PithError, PithWarning, Recipe, StoreError, methods
from pith.core.words import bytes_
from pith.measure import Answer, answer, weight_bytes
from pith.measure.seconds import run_once, run_pairs, speed, timed_prompt
from pith.models import Loaded, Subject
from pith.models.smaller import subject
from pith.search.aim import Aim
from pith.search.at import recipes_at
from pith.search.kept import could_keep, kept, require_telling
from pith.search.proposals import Proposals
from pith.search.sought import Tried
from pith.search.space import Space, lower
from pith.study.question import ask
from pith.study.store import Store
from pith.study.work import alive, worker_name
from pith.tasks import Quality, Task

PROBE = 64
"""Tokens of the prompt that shows whether a model can take a method."""

FEW, FEWEST = 4, 6
"""A recipe is first tried on one of so many examples, and on so many at least."""

PAIRS = 3
"""Pairs of timed runs of a trial."""

WEIGHED = 4
"""For each recipe that is to be tried on examples at most so many are weighed: most of them are too heavy."""


class SearchWatch(Protocol):
    """Told how a search goes on."""

    def progress(self, what: str, done: int, total: int) -> None:
        """A part of a trial goes on."""

    def tries(self, recipe: Recipe) -> None:
        """A recipe is about to be tried."""

    def has_tried(self, tried: Sequence[Tried], wanted: int) -> None:
        """Everything that was tried so far, and how many recipes are to be."""


class Search:
    """A search that can be killed at any moment, and goes on where it was.

    Args:
        loaded: the model.
        aim: what is searched for.
        store: keeps what tasks found, and, in the same database, what was tried.
        watch: told how it goes on.

    Attributes:
        dense_memory: bytes of the dense model's weights and caches.
        calibrations: by the task's text.

    Raises:
        InputError: the aim makes no sense, or the dense model is no better than a guesser.
    """

    def __init__(self, loaded: Loaded, aim: Aim, store: Store, watch: SearchWatch) -> None:
        aim.require_sense(loaded)
        self._loaded, self._aim, self._store, self._watch = loaded, aim, store, watch
        self._prompt: Any = timed_prompt(loaded.tokenizer, aim.length, aim.seed).to(loaded.model.device)
        self._few = tuple(fewer(task) for task in aim.tasks)
        self._asked = ask(loaded, (), aim.tasks, length=aim.length, seed=aim.seed)
        self._dense = Subject(loaded.model, loaded.tokenizer)
        self._weights, self._held = 0, 0  # of what was tried last, its cache after the prompt
        self.dense_memory = self._weighed(self._dense)
        self._answers: dict[tuple[str, str], Quality] = {}
        for task in aim.tasks:
            task.check_length(loaded.model)  # making examples of a length that no model reads may take minutes
        self.calibrations = {str(task): task.calibrate(loaded.tokenizer) for task in (*self._few, *aim.tasks)}

    def run(self, trials: int, minutes: float | None = None) -> list[Tried]:
        """Tries recipes until so many were tried on examples, those of earlier runs of this search counted.

        A recipe that takes too much memory comes again with its knob turned until it just meets the limit.

        Args:
            trials: how many.
            minutes: after so many it ends in any case.

        Raises:
            StoreError: the database cannot be read or written.
            InputError: the dense model is no better than a guesser.
        """
        ends = time.monotonic() + 60 * minutes if minutes is not None else math.inf
        self._require_telling()
        found = self._aim.searched(self.dense_memory, self._cannot())
        me = worker_name()
        with alive(self._store, me):
            proposals = Proposals(self._store, me, self._name(found), self._aim.seed)
            proposals.enqueue([found.decisions(recipe) for recipe in found.alone(self._start)])
            try:
                while self._is_left(proposals.tried, trials) and time.monotonic() < ends:
                    if not self._step(proposals, found, trials):
                        break
            except (KeyboardInterrupt, StoreError):
                proposals.stop()
                raise
            finally:
                with suppress(StoreError):
                    self._store.release(me)
        return proposals.tried

    def _step(self, proposals: Proposals, found: Space, trials: int) -> bool:
        """Try one recipe; return whether there was one left."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PithWarning)  # they stand beside what is measured afresh
            recipe = proposals.ask(found)
            if recipe is None:
                return False
            self._watch.tries(recipe)
            tried = self._try(recipe)
            proposals.tell(tried, self._aim.misses(tried.memory, tried.quality, tried.latency))
            self._watch.has_tried(proposals.tried, trials)
            if lighter := self._lighter(recipe, tried):
                proposals.enqueue([found.decisions(lighter)])
        return True

    def _is_left(self, tried: Sequence[Tried], trials: int) -> bool:
        """Whether more is to be tried: so many are tried on examples, and at most a few times as many weighed."""
        return len(tried) < WEIGHED * trials and sum(t.examples > 0 for t in tried) < trials

    def _lighter(self, recipe: Recipe, tried: Tried) -> Recipe | None:
        """Of a recipe that takes too much, the one that just meets the limit of memory; None where none does.

        The cache's part is turned where what the weights leave can hold one, and else the part that changes weights.
        """
        limit = self._aim.memory
        if limit is None or tried.memory is None or tried.memory <= limit:
            return None
        grown = (tried.memory - self._weights) // self._aim.batch - self._held
        nbytes = (limit - self._weights) // self._aim.batch - grown
        aim = self._aim
        if nbytes >= 1 and len(recipe.rest):
            found, _ = recipes_at(self._loaded, [recipe], nbytes=nbytes, length=aim.length, seed=aim.seed)
            if len(found) > 1 and len(found[1]):
                return found[1]
        return lower(recipe)

    def _try(self, recipe: Recipe) -> Tried:
        """A recipe as far as it is worth it: bytes, few examples, time, all examples."""
        text, aim = str(recipe), self._aim
        try:
            mine = subject(self._loaded, recipe, self._watch.progress)
            memory = self._weighed(mine)
            tried = Tried(text, memory, None, None, 0)
            if aim.memory is not None and memory > aim.memory:
                return replace(tried, given_up=f"it takes {bytes_(memory)}")
            few, could = self._quality(recipe, self._few)
            examples = min(quality.n for quality in few.values())
            tried = replace(tried, quality=self._kept(self._few, few), examples=examples)
            if could < aim.quality:
                return replace(tried, given_up=f"{examples} examples show that it keeps less")
            seconds = speed(*run_pairs(mine, self._dense, self._prompt, PAIRS, self._told("speed")))
            tried = replace(tried, latency=seconds.decode_ratio)
            if aim.latency is not None and seconds.decode_ratio * (1 - seconds.spread) > aim.latency:
                return replace(tried, given_up=f"a token takes {seconds.decode_ratio:.2f}x the dense model's time")
            every, _ = self._quality(recipe, aim.tasks)
            return replace(tried, quality=self._kept(aim.tasks, every), examples=min(q.n for q in every.values()))
        except StoreError:
            raise
        except PithError as error:
            return Tried(text, None, None, None, 0, given_up=str(error))

    def _quality(self, recipe: Recipe, tasks: Sequence[Task]) -> tuple[dict[str, Quality], float]:
        """What tasks find, up to the first that shows that too little is kept; the share that could be kept at best."""
        found: dict[str, Quality] = {}
        could = math.inf
        for task in tasks:
            found[str(task)] = mine = self._answer(recipe, task)
            could = min(could, could_keep(task, mine, self._answer(Recipe(), task), self.calibrations[str(task)]))
            if tasks is self._few and could < self._aim.quality:
                break
        return found, could

    def _kept(self, tasks: Sequence[Task], found: Mapping[str, Quality]) -> float:
        return min(
            kept(task, found[str(task)], self._answer(Recipe(), task), self.calibrations[str(task)])
            for task in tasks
            if str(task) in found
        )

    def _answer(self, recipe: Recipe, task: Task) -> Quality:
        """What a task finds, from the store where it is there."""
        known = str(recipe), str(task)
        if known in self._answers:
            return self._answers[known]
        key = self._asked.key(recipe, task)
        stored = self._store.get(Answer, key, task.bounds)
        if stored is None:
            stored = answer(
                self._loaded, recipe, task, batch_size=self._aim.batch_size, progress=self._watch.progress
            )  # fmt: skip
            self._store.put(key, stored, self._asked.of(recipe, task))
        self._answers[known] = stored.quality
        return stored.quality

    def _require_telling(self) -> None:
        for task in self._aim.tasks:
            require_telling(task, self._answer(Recipe(), task), self.calibrations[str(task)])

    def _cannot(self) -> list[str]:
        """The methods that the model cannot take, even alone; what changes weights takes too long to be looked at."""
        cannot = []
        for name, method in methods().items():
            try:
                if method.order > 0:
                    run_once(subject(self._loaded, Recipe([method()])), self._prompt[:, :PROBE], tokens=1)
            except PithError:
                cannot.append(name)
        return cannot

    def _start(self, method: Method) -> float | None:
        """Where a method's knob stands at first: as far along its sweep as the limit along what it makes smaller.

        None where the weights leave no room for any cache, and the method does not change them.
        """
        if self._aim.memory is None:
            return 0.5
        if method.order == 0:
            return min(self._aim.memory / self.dense_memory, 1.0)
        weights = weight_bytes(self._loaded.model)
        share = (self._aim.memory - weights) / (self.dense_memory - weights)
        return min(share, 1.0) if share > 0 else None

    def _name(self, found: Space) -> str:
        """The search's name: equal for equal searches only."""
        aim = {k: v for k, v in asdict(self._aim).items() if k not in ("tasks", "among")} | {"names": found.names}
        if found.reads_texts:
            aim["calibration"] = self._loaded.source.identity(self._loaded.tokenizer)
        asked = [self._asked.of(Recipe(), task) for task in self._aim.tasks]
        return "pith fit " + hashlib.sha256(json.dumps([aim, asked], sort_keys=True).encode()).hexdigest()[:32]

    def _weighed(self, examined: Subject) -> int:
        """The bytes of weights and caches after the prompt, or after the decoded tokens where they are more."""
        run = run_once(examined, self._prompt)
        self._weights, self._held = weight_bytes(examined.model), run.prefill_bytes
        return self._weights + self._aim.batch * max(run.prefill_bytes, run.decoded_bytes)

    def _told(self, what: str) -> Any:
        return lambda done, total: self._watch.progress(what, done, total)


def changed(task: Task, name: str, change: Callable[[int], int]) -> Task:
    """The task with another value of a whole number, such as its seed; as it is where it has no such parameter."""
    value = getattr(task, name, None)
    return replace(task, **{name: change(value)}) if isinstance(value, int) else task


def fewer(task: Task) -> Task:
    """The task with fewer examples, where it lets their number be chosen."""
    return changed(task, "count", lambda count: max(count // FEW, min(FEWEST, count)))
