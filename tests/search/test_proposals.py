"""A search that is stopped, killed or shared loses nothing and tries nothing twice."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from pith.core import Recipe, StoreError
from pith.measure import weight_bytes
from pith.measure.seconds import Run
from pith.models import Loaded, Subject, load
from search import fits
from search.fits import CACHE, Noted, fitted, unmeasured, weighed
from study.killed import path


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load("builtin")


@pytest.fixture(scope="module")
def limit(loaded: Loaded) -> int:
    """The weights and 40 % of the dense cache."""
    return weight_bytes(loaded.model) + int(0.4 * CACHE)


def test_killed_at_any_moment_it_goes_on_and_tries_nothing_twice(tmp_path: Path, limit: int, loaded: Loaded) -> None:
    log, folder = tmp_path / "log", tmp_path / "study"
    command = [sys.executable, fits.__file__, str(folder), str(log), str(limit), "9"]
    environment = os.environ | {"PYTHONPATH": path()}
    for done in (3, 8):
        child = subprocess.Popen(command, env=environment)
        try:
            while child.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < done):
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL
        finally:
            child.kill()
    logged, watch = log.read_text().splitlines(), Noted()
    with unmeasured():
        _, sought = fitted(folder, watch, limit, 9, loaded)
    # a kill takes at most the line of the recipe in hand, whose outcome was stored or is tried again
    assert len(set(logged)) == len(logged) >= 8
    assert not set(logged) & set(watch.trying)
    assert set(logged) <= {t.recipe for t in sought.tried}
    assert len({t.recipe for t in sought.tried}) == len(sought.tried) <= len(logged) + len(watch.trying) + 2
    assert sought.found is not None


def test_what_ends_the_process_twice_is_given_up(loaded: Loaded, limit: int, tmp_path: Path) -> None:
    class Killed(BaseException):
        """What nothing catches, as a kill is not caught."""

    def poison(subject: Subject, prompt: object, tokens: int = 32) -> Run:
        if str(subject.recipe) == "deco_quant()" and tokens > 1:
            raise Killed
        return weighed(subject, prompt, tokens)

    with unmeasured(poison):
        for _ in range(2):
            with pytest.raises(Killed):
                fitted(tmp_path, Noted(), limit, 9, loaded)
        _, sought = fitted(tmp_path, Noted(), limit, 9, loaded)
    [lost] = [t for t in sought.tried if t.memory is None]
    assert lost.recipe == "deco_quant()"
    assert lost.given_up == "the process ended twice while it was tried"


def test_what_was_stopped_is_taken_up_first_however_often(loaded: Loaded, limit: int, tmp_path: Path) -> None:
    stopped, met = [], []

    class Stopped(Noted):
        def tries(self, recipe: Recipe) -> None:
            super().tries(recipe)
            met.append(str(recipe))
            if len(stopped) < 3 and len(met) > 2:
                stopped.append(str(recipe))
                raise KeyboardInterrupt

    with unmeasured():
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                fitted(tmp_path, Stopped(), limit, 9, loaded)
        _, sought = fitted(tmp_path, Stopped(), limit, 9, loaded)
    assert met[2:6] == [met[2]] * 4, "the same recipe comes first, each time"
    assert [t for t in sought.tried if t.recipe == met[2] and t.memory is not None]
    assert not [t for t in sought.tried if t.memory is None]
    assert len({t.recipe for t in sought.tried}) == len(sought.tried)


def test_two_searches_on_one_store_share_what_is_to_be_tried(loaded: Loaded, limit: int, tmp_path: Path) -> None:
    class Side(Noted):
        """Runs another search in the midst of a trial."""

        def tries(self, recipe: Recipe) -> None:
            super().tries(recipe)
            if len(self.trying) == 2:
                fitted(tmp_path, other, limit, 5, loaded)

    watch, other = Side(), Noted()
    with unmeasured():
        _, sought = fitted(tmp_path, watch, limit, 9, loaded)
    assert len(other.trying) >= 5
    assert watch.trying[1] not in other.trying, "what another process has in hand is not taken"
    assert not set(watch.trying) & set(other.trying)
    assert {t.recipe for t in sought.tried} == set(watch.trying) | set(other.trying)
    assert sum(t.examples > 0 for t in sought.tried) >= 9
    assert all(t.given_up != "the process ended twice while it was tried" for t in sought.tried)


def test_an_outcome_that_came_late_leaves_the_stored_one(loaded: Loaded, limit: int, tmp_path: Path) -> None:
    taken = []

    class Late(Noted):
        """Sleeps through its own death: meanwhile another search takes up what it has in hand."""

        def tries(self, recipe: Recipe) -> None:
            super().tries(recipe)
            if len(self.trying) == 2:
                with closing(sqlite3.connect(tmp_path / "study.sqlite")) as database, database:
                    database.execute("UPDATE pith_claim SET worker = 'nobody', beat = 0")
                fitted(tmp_path, other, limit, 5, loaded)
                taken.append(str(recipe))

    watch, other = Late(), Noted()
    with unmeasured():
        _, sought = fitted(tmp_path, watch, limit, 7, loaded)
    assert other.trying[0] == taken[0], "first of all"
    assert len({t.recipe for t in sought.tried}) == len(sought.tried)


@pytest.mark.parametrize("value", ["3", "[]", '{"recipe": "kivi"}', '{"recipe": 1, "memory": "x"}', "{", "null"])
def test_trials_that_are_damaged_are_one_line(loaded: Loaded, limit: int, tmp_path: Path, value: str) -> None:
    with unmeasured():
        fitted(tmp_path, Noted(), limit, 2, loaded)
        with closing(sqlite3.connect(tmp_path / "study.sqlite")) as database, database:
            database.execute("UPDATE trial_user_attributes SET value_json = ? WHERE key = 'tried'", (value,))
        with pytest.raises(StoreError, match=r"what was tried is damaged \(.*\); it was left as it is") as error:
            fitted(tmp_path, Noted(), limit, 4, loaded)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
