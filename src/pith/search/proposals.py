"""What a search tries next: Optuna's sampler, which learns from what was tried, in the study's own database."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import TypeAdapter
from sqlalchemy.exc import SQLAlchemyError

from pith.core import PithError, Recipe, StoreError
from pith.search.sought import Tried
from pith.search.space import Space
from pith.study.store import Store
from pith.study.work import DEAD, WAIT, is_gone

TRIED, RECIPE, DEATHS = "tried", "recipe", "deaths"
"""What a trial's attributes are called: the outcome, the recipe, and how many processes ended while they tried it."""

REFUSED = 1.0
"""By how much a recipe misses its limits that cannot be, or that the model cannot take."""

IN_VAIN = 50
"""So many proposals in a row that are not new, or cannot be, end a search."""

DEADLY = 2
"""A recipe is given up when so many processes ended while they tried it; one that was stopped does not count."""

_TRIED = TypeAdapter(Tried)


class Proposals:
    """Recipes one after another, each once; stopped or killed at any moment, the search goes on with the same ones.

    Three things are sought at once: few bytes, high quality, little time. A tree-structured Parzen estimator (Optuna's
    TPE, several objectives, grouped and joint over parameters) proposes; what misses a limit counts as a constraint
    that was not kept, by how much it was missed.

    Several processes may search in one store: each recipe that is being tried is claimed there, as pieces of
    measurements are. One whose process has ended is taken up before anything else.

    Args:
        store: where everything lies; its worker must give signs of life (`pith.study.work.alive`).
        worker: the name under which recipes are claimed.
        name: the search's.
        seed: of what is proposed.

    Attributes:
        tried: what became of the recipes tried, those of other processes too, in the order proposed.

    Raises:
        StoreError: the database cannot be read or written, or what it holds of the search is damaged.
    """

    def __init__(self, store: Store, worker: str, name: str, seed: int) -> None:
        self._store, self._worker, self._name = store, worker, name
        with self._plainly():
            url = store.url
            settings = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
            storage = optuna.storages.RDBStorage(url, engine_kwargs=settings)
            self._study = optuna.create_study(
                storage=storage, study_name=name, load_if_exists=True, directions=["minimize", "maximize", "minimize"]
            )
            trials = self._study.get_trials(deepcopy=False)
            # a sampler begins its seed anew in each process: what was proposed before must not come again
            self._study.sampler = optuna.samplers.TPESampler(seed=seed + len(trials), multivariate=True, group=True)
        self._trial: Trial | None = None
        self.tried: list[Tried] = []
        self._look()

    def enqueue(self, decisions: Sequence[Mapping[str, Any]]) -> None:
        """Add decisions of a chooser that are proposed before all new ones; what they leave open is sampled."""
        with self._plainly():
            for decision in decisions:
                self._study.enqueue_trial(dict(decision), skip_if_exists=True)

    def ask(self, space: Space) -> Recipe | None:
        """Return a recipe that was not tried yet, first of all one that was stopped; None where no more is found."""
        for _ in range(IN_VAIN):
            # one that another process has ended meanwhile, because this one gave no sign of life, is let go
            with self._plainly(), suppress(UpdateFinishedTrialError):
                known = self._look()
                self._trial = self._next()
                known.discard(self._trial.user_attrs.get(RECIPE, ""))
                try:
                    recipe = space.build(_Chooser(self._trial))
                except PithError:
                    self._trial.set_constraint("possible", REFUSED)
                    self._end(state=TrialState.PRUNED)
                    continue
                if len(recipe) and str(recipe) not in known:
                    self._trial.set_user_attr(RECIPE, str(recipe))
                    return recipe
                self._end(state=TrialState.FAIL)  # from which nothing is learned
        return None

    def tell(self, tried: Tried, misses: Sequence[float]) -> None:
        """Store what became of the recipe that was proposed last.

        Args:
            tried: what was found.
            misses: by how much each limit was missed; 0 where it was not.
        """
        with self._plainly():
            with suppress(UpdateFinishedTrialError):  # by another process, which took this one for dead
                self._finish(tried, misses)
            self._look()

    def _finish(self, tried: Tried, misses: Sequence[float]) -> None:
        assert self._trial is not None
        self._trial.set_user_attr(TRIED, asdict(tried))
        for index, missed in enumerate(misses if tried.memory is not None else [REFUSED]):
            self._trial.set_constraint(str(index), missed)
        if tried.given_up is None:
            self._end([tried.memory, tried.quality, tried.latency])  # type: ignore[list-item]
        else:
            self._end(state=TrialState.PRUNED)

    def stop(self) -> None:
        """Give back the recipe in hand, because the user or the database ends the search: no death is counted."""
        if self._trial is None:
            return
        with suppress(PithError), self._plainly():
            deaths = int(self._trial.user_attrs.get(DEATHS, 0))
            self._trial.set_user_attr(DEATHS, deaths - 1)  # whoever takes it up counts one
            self._store.release(self._worker, self._key(self._trial.number))
            self._trial = None

    def _next(self) -> Trial:
        """Return a trial that nobody else has: one whose process has ended, or else a new one."""
        with self._alone():
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if self._claim(self._key(trial.number)) and not self._is_deadly(trial):
                    return Trial(self._study, trial._trial_id)
            new = self._study.ask()
            self._claim(self._key(new.number))
            return new

    def _is_deadly(self, trial: FrozenTrial) -> bool:
        """Return whether a trial whose process has ended is given up; else count that."""
        mine = Trial(self._study, trial._trial_id)
        deaths = int(trial.user_attrs.get(DEATHS, 0)) + 1
        if deaths < DEADLY or RECIPE not in trial.user_attrs:
            mine.set_user_attr(DEATHS, deaths)
            return False
        self._trial = mine
        why = "the process ended twice while it was tried"
        self.tell(Tried(trial.user_attrs[RECIPE], None, None, None, 0, given_up=why), ())
        return True

    def _look(self) -> set[str]:
        """Read what was tried; return the recipes of every trial that was or is being tried."""
        with self._plainly():
            trials = self._study.get_trials(deepcopy=False)
            self.tried = [_TRIED.validate_python(t.user_attrs[TRIED]) for t in trials if TRIED in t.user_attrs]
            running = {
                str(t.user_attrs[RECIPE]) for t in trials if not t.state.is_finished() and RECIPE in t.user_attrs
            }
        return running | {tried.recipe for tried in self.tried}

    def _end(self, values: list[float] | None = None, state: TrialState | None = None) -> None:
        assert self._trial is not None
        self._study.tell(self._trial, values, state=state)
        self._store.release(self._worker, self._key(self._trial.number))
        self._trial = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from proposing, so that every running trial is claimed while nobody is in here."""
        key = f"{self._name} proposes"
        while not self._claim(key):
            time.sleep(WAIT / 10)
        try:
            yield
        finally:
            self._store.release(self._worker, key)

    def _claim(self, key: str) -> bool:
        holder = self._store.holder(key)
        if holder is not None and holder != self._worker and is_gone(holder):
            self._store.release(holder, key)
        return self._store.claim(key, self._worker, DEAD)

    def _key(self, number: int) -> str:
        return f"{self._name} {number}"

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Optuna without its log; the database's errors, and those of what a row holds, as one line."""
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with warnings.catch_warnings(), self._store.waiting():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            why = " ".join(str(error.__cause__ or error).split())[:160]
            raise StoreError(f"what was tried cannot be read or written: {why}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            why = " ".join(str(error).split())[:100]
            raise StoreError(
                f"what was tried is damaged ({why}); it was left as it is: move {self._store.place} away, or name "
                "another folder"
            ) from error
        finally:
            optuna.logging.set_verbosity(level)


class _Chooser:
    """Lets an Optuna trial decide."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def choice(self, name: str, options: Sequence[Any]) -> Any:
        """One of these."""
        return self._trial.suggest_categorical(name, options)

    def number(self, name: str, low: float, high: float, log: bool) -> float | int:
        """A number of the range."""
        if isinstance(low, int) and isinstance(high, int):
            return self._trial.suggest_int(name, low, high, log=log)
        return self._trial.suggest_float(name, low, high, log=log)
