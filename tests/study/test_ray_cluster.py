from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pith.core import InputError, Recipe
from pith.measure import Answer
from pith.study import Measurer, RayWorkers, Store
from pith.tasks import Task
from study.fakes import question
from study.killed import MakeNoted, Noted, path
from study.test_team import answered, check_mistakes


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of this machine that all tests here share."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    team = RayWorkers("local", 2, MakeNoted(Path(), 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path())  # the actors' measurers are defined in the tests
        assert team._join()
    assert not team._join()
    yield
    ray.shutdown()


@dataclass(frozen=True)
class DiesOnce(Noted):
    """Kills its own process at its first answer."""

    def __call__(self) -> Measurer:
        return self

    def answer(self, recipe: Recipe, task: Task) -> Answer:
        first = not self.log.exists()
        self._note(recipe, task)
        if first:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(recipe, task)


def test_two_actors_share_a_study(cluster: None, tmp_path: Path) -> None:
    asked, told, log = question("snapkv", "streaming_llm"), [], tmp_path / "log"
    with Store(tmp_path) as store:
        team = RayWorkers("local", 2, MakeNoted(log, 0.05), lambda done, total: told.append((done, total)))
        assert team.answer(asked, store) == {}
        assert answered(store, asked)
    assert set(Counter(log.read_text().splitlines()).values()) == {1}
    assert told[-1] == (10, 10)


def test_an_actor_that_dies_is_replaced_and_loses_what_it_had_in_hand(cluster: None, tmp_path: Path) -> None:
    asked, log = question("snapkv"), tmp_path / "log"
    with Store(tmp_path) as store:
        assert RayWorkers("local", 1, DiesOnce(log, 0)).answer(asked, store) == {}
        assert answered(store, asked)
    counts = Counter(log.read_text().splitlines())
    assert len(counts) == 6
    # each answer is noted twice, here and by its base; the one in hand once more
    assert sum(counts.values()) == 13


def test_what_an_actor_refuses_and_mistakes_reaches_the_caller(cluster: None, tmp_path: Path) -> None:
    check_mistakes(lambda make: RayWorkers("local", 1, make), tmp_path)


def test_a_cluster_needs_a_database_that_all_reach(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with (
        Store(tmp_path) as store,
        pytest.raises(InputError, match=r"cannot reach the file .*study.sqlite; name a Post"),
    ):
        RayWorkers("ray://elsewhere:10001", 2, MakeNoted(Path(), 0)).answer(question("snapkv"), store)


def test_ray_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install pith-lm\[ray\]"):
        RayWorkers("local", 2, MakeNoted(Path(), 0))
