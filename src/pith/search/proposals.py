"""What a search tries next: Optuna's sampler, which learns from what was tried, in the study's own database."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pith.core import PithError, Recipe, StoreError
from pith.search.sought import Tried
from pith.search.space import Space

TRIED, RECIPE, AGAIN = "tried", "recipe", "again"
"""What a trial's attributes are called."""

REFUSED = 1.0
"""By how much a recipe misses its limits that cannot be, or that the model cannot take."""

IN_VAIN = 50
"""So many proposals in a row that are not new, or cannot be, end a search."""


class Proposals:
    """Recipes one after another, each once; killed at any moment it goes on with the same ones.

    Three things are sought at once: few bytes, high quality, little time. A tree-structured Parzen estimator (Optuna's
    TPE, several objectives, grouped and joint over parameters) proposes; what misses a limit counts as a constraint
    that was not kept, by how much it was missed.

    Args:
        url: the database's.
        name: the search's.
        seed: of what is proposed.

    Attributes:
        tried: what was told, in its order.

    Raises:
        StoreError: the database cannot be read or written.
    """

    def __init__(self, url: str, name: str, seed: int) -> None:
        with _plainly():
            settings = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
            storage = optuna.storages.RDBStorage(url, engine_kwargs=settings)
            self._study = optuna.create_study(
                storage=storage, study_name=name, load_if_exists=True, directions=["minimize", "maximize", "minimize"]
            )
            trials = self._study.get_trials(deepcopy=False)
            # a sampler begins its seed anew in each process: what was proposed before must not come again
            self._study.sampler = optuna.samplers.TPESampler(seed=seed + len(trials), multivariate=True, group=True)
        self.tried = [Tried(**trial.user_attrs[TRIED]) for trial in trials if TRIED in trial.user_attrs]
        self._trial: Trial | None = None
        for trial in trials:
            if trial.state == TrialState.RUNNING:  # killed in its midst
                self._again(trial)

    def enqueue(self, decisions: Sequence[Mapping[str, Any]]) -> None:
        """Decisions of a chooser that are proposed before all others; what they leave open is sampled."""
        with _plainly():
            for decision in decisions:
                self._study.enqueue_trial(dict(decision), skip_if_exists=True)

    def ask(self, space: Space) -> Recipe | None:
        """A recipe that was not tried yet; None where no more is found."""
        known = {tried.recipe for tried in self.tried}
        for _ in range(IN_VAIN):
            with _plainly():
                self._trial = self._study.ask()
                try:
                    recipe = space.build(_Chooser(self._trial))
                except PithError:
                    self._trial.set_constraint("possible", REFUSED)
                    self._study.tell(self._trial, state=TrialState.PRUNED)
                    continue
                if len(recipe) and str(recipe) not in known:
                    self._trial.set_user_attr(RECIPE, str(recipe))
                    return recipe
                self._study.tell(self._trial, state=TrialState.FAIL)  # from which nothing is learned
        return None

    def tell(self, tried: Tried, misses: Sequence[float]) -> None:
        """What became of the recipe that was proposed last.

        Args:
            tried: what was found.
            misses: by how much each limit was missed; 0 where it was not.
        """
        assert self._trial is not None
        with _plainly():
            for index, missed in enumerate(misses if tried.memory is not None else [REFUSED]):
                self._trial.set_constraint(str(index), missed)
            self._trial.set_user_attr(TRIED, asdict(tried))
            if tried.given_up is None:
                self._study.tell(self._trial, [tried.memory, tried.quality, tried.latency])  # type: ignore[list-item]
            else:
                self._study.tell(self._trial, state=TrialState.PRUNED)
        self.tried.append(tried)

    def _again(self, trial: FrozenTrial) -> None:
        """Proposes anew what was in hand when the process ended; given up where it ended twice over it."""
        with _plainly():
            if AGAIN in trial.user_attrs and RECIPE in trial.user_attrs:
                self._trial = Trial(self._study, trial._trial_id)
                why = "the process ended twice while it was tried"
                self.tell(Tried(trial.user_attrs[RECIPE], None, None, None, 0, given_up=why), ())
                return
            self._study.tell(trial.number, state=TrialState.FAIL)
            decisions = trial.system_attrs.get("fixed_params", {}) | trial.params
            self._study.enqueue_trial(decisions, user_attrs={AGAIN: True})


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


@contextmanager
def _plainly() -> Iterator[None]:
    """Optuna without its log; the database's errors as one line."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        why = " ".join(str(error.__cause__ or error).split())[:200]
        raise StoreError(f"what was tried cannot be read or written: {why}") from None
    finally:
        optuna.logging.set_verbosity(level)
