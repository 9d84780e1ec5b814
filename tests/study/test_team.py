from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import active_children
from pathlib import Path

import pytest

from pith.core import InputError, ModelError, Recipe
from pith.core.errors import PithError
from pith.measure import Answer
from pith.study import Elsewhere, Here, Measurer, Question, Store, Team, Workers, ask, compare, tasks_with
from pith.study.work import is_gone, job, work, worker_name
from pith.tasks import Task
from study.fakes import Fake, question
from study.killed import MakeNoted, Quiet, many


@dataclass(frozen=True)
class Bad(Fake):
    """A measurer that fails as its name says when it comes to snapkv."""

    how: str
    log: str = ""

    def __call__(self) -> Measurer:
        return self

    def answer(self, recipe: Recipe, task: Task) -> Answer:
        if "snapkv" in str(recipe):
            if self.log:
                with Path(self.log).open("a") as lines:
                    lines.write("x")
            if self.how == "refuses":
                raise ModelError("it has no rotary positions")
            if self.how == "mistake":
                raise InputError("count=0 makes no sense")
            if self.how == "bug":
                raise ZeroDivisionError
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(recipe, task)


def taken(log: Path) -> Counter[str]:
    return Counter(log.read_text().splitlines())


def answered(store: Store, asked: Question) -> bool:
    keys = [asked.key(recipe, task) for recipe in asked.recipes for task in asked.tasks]
    return store.held(keys) == set(keys)


@contextmanager
def killing(log: Path, times: int, seed: int) -> Iterator[Callable[[], int]]:
    """Kills worker processes at random moments, whatever they are doing, between which some answers are taken."""
    dice, over, killed = random.Random(seed), threading.Event(), []

    def kill() -> None:
        seen = 0
        while len(killed) < times and not over.wait(dice.uniform(0.0, 0.1)):
            victims, lines = active_children(), len(log.read_text().splitlines())
            if victims and lines >= seen:
                os.kill(dice.choice(victims).pid or 0, signal.SIGKILL)
                killed.append(lines)
                seen = lines + dice.randrange(1, 12)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield lambda: len(killed)
    finally:
        over.set()
        thread.join()


def test_workers_killed_at_random_moments_lose_at_most_the_answer_in_hand(where: str, tmp_path: Path) -> None:
    log, asked = tmp_path / "log", many()
    log.touch()
    with Store(where) as store, killing(log, times=3, seed=len(where)) as kills:
        assert Workers(2, MakeNoted(log, 0.05)).answer(asked, store) == {}
        count = kills()
        assert answered(store, asked)
        assert len(store) == 28 * 2
    found = taken(log)
    assert len(found) == 28 * 2
    assert count >= 2
    assert sum(found.values()) <= 28 * 2 + count
    assert max(found.values()) <= 1 + count


def test_each_answer_is_taken_once_and_costs_only_afterwards(tmp_path: Path) -> None:
    log, asked, told = tmp_path / "log", question("snapkv", "streaming_llm"), []
    make = MakeNoted(log, 0.01)
    with Store(tmp_path) as store:
        team = Workers(2, make, lambda done, total: told.append((done, total)))
        study = compare(asked, store, make(), Quiet(), team)
    assert list(study.measurements) == [str(recipe) for recipe in asked.recipes]
    lines = log.read_text().splitlines()
    assert set(Counter(lines).values()) == {1}
    assert [line.endswith("costs") for line in lines] == [False] * 10 + [True] * 5
    assert told[-1] == (10, 10)
    assert told == sorted(told)


def test_a_claim_of_a_worker_that_died_long_ago_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pith.study.work.DEAD", 0.2)
    asked = question("snapkv")
    with Store(tmp_path) as store:
        assert store.claim(asked.key(asked.recipes[0], asked.tasks[0]), "dead", dead=60)
        assert work(job(asked, store, MakeNoted(tmp_path / "log", 0), 1), "mine") == {}
        assert answered(store, asked)


def test_a_workers_own_claims_live_while_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pith.study.work.BEAT", 0.02)
    asked, log = question("snapkv"), tmp_path / "log"
    with Store(tmp_path) as store:
        doing = job(asked, store, MakeNoted(log, 0.5), 1)
        thread = threading.Thread(target=work, args=(doing, "mine"))
        thread.start()
        while not log.exists():
            time.sleep(0.01)
        time.sleep(0.3)
        assert not store.claim(doing.keys[0], "other", dead=0.2)
        assert store.claims("mine") == {doing.keys[0]}
        thread.join()
        assert answered(store, asked)
        assert store.claims("mine") == set()


def test_nothing_is_started_where_everything_is_stored(tmp_path: Path) -> None:
    asked = question("snapkv")
    with Store(tmp_path) as store:
        work(job(asked, store, MakeNoted(tmp_path / "log", 0), 1), "mine")

        class Never(Workers):
            def _start(self, *_: object) -> None:
                raise AssertionError

        assert Never(2, Bad("bug")).answer(asked, store) == {}


def check_mistakes(team: Callable[[Callable[[], Measurer]], Team], folder: Path) -> None:
    """What workers refuse, mistake and break reaches the one who waits for them."""
    asked = question("snapkv", "streaming_llm", budgets=())
    with Store(folder) as store:
        assert team(Bad("refuses")).answer(asked, store) == {"snapkv()": "it has no rotary positions"}
        assert len(store) == 4
        with pytest.raises(InputError, match=r"^count=0 makes no sense$"):
            team(Bad("mistake")).answer(asked, store)
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            team(Bad("bug")).answer(asked, store)
        assert len(store) == 4


def test_what_a_worker_refuses_and_mistakes_reaches_the_caller(tmp_path: Path) -> None:
    check_mistakes(lambda make: Workers(1, make), tmp_path)
    assert not active_children()


def test_a_piece_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Store(tmp_path) as store:
        with pytest.raises(PithError, match=r"3 workers died at .* of snapkv"):
            Workers(1, Bad("dies", str(log))).answer(question("snapkv", budgets=()), store)
        assert len(store) == 2
    assert log.read_text() == "xxx"
    assert not active_children()


def test_a_dense_model_that_cannot_be_measured_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question("snapkv")
    with Store(tmp_path) as store:
        monkeypatch.setattr(Fake, "answer", lambda *_: (_ for _ in ()).throw(ModelError("it is no model")))
        with pytest.raises(ModelError, match="it is no model"):
            work(job(asked, store, MakeNoted(tmp_path / "log", 0), 1), "mine")
        assert store.claims("mine") == set()


def test_code_or_files_that_changed_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one")
    asked = Question("fake", (Recipe(),), tasks_with(f"perplexity(text={str(text)!r})", {}), {})
    with Store(tmp_path) as store:
        doing = job(asked, store, MakeNoted(tmp_path / "log", 0), 1)
        text.write_text("another")
        with pytest.raises(PithError, match="are not what the study began with"):
            work(doing, "mine")


def test_less_than_one_worker_makes_no_sense() -> None:
    with pytest.raises(InputError, match="workers=0"):
        Workers(0, Bad("bug"))


def test_a_worker_answers_as_the_model_here_does(tmp_path: Path) -> None:
    from pith.models import load

    loaded, tasks = load("builtin"), tasks_with("needle(length=128, count=2)", {})
    here = Here(loaded, 64, 2, 0)
    asked = ask(loaded, (Recipe(), Recipe.parse("snapkv")), tasks, length=64, seed=0)
    with Store(tmp_path) as store:
        assert work(job(asked, store, here.elsewhere(), 1), "mine") == {}
        for recipe in asked.recipes:
            assert store.get(Answer, asked.key(recipe, tasks[0])) == here.answer(recipe, tasks[0])
    with pytest.raises(ModelError, match="another model"):
        Elsewhere("builtin", "torch.float32", "cpu", "another", 2)()


def test_a_lock_in_the_midst_is_waited_for_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pith.study.store.SOON", 0.05)
    asked, log = question("snapkv"), tmp_path / "log"
    log.touch()
    with (
        Store(tmp_path) as store,
        closing(sqlite3.connect(tmp_path / "study.sqlite", isolation_level=None, check_same_thread=False)) as other,
    ):
        doing = job(asked, store, MakeNoted(log, 0.01), 1)
        thread = threading.Thread(target=work, args=(doing, "mine"))
        thread.start()
        while not log.read_text():
            time.sleep(0.01)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(0.5)
        other.execute("ROLLBACK")
        thread.join()
        assert answered(store, asked)
    assert set(taken(log).values()) == {1}
    assert capsys.readouterr().err.count("another program may be writing to it") == 1


def test_a_worker_whose_process_ended_here_is_known_to_be_gone() -> None:
    mine = worker_name()
    assert not is_gone(mine)
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    machine, _, rest = mine.rsplit("-", 2)
    assert is_gone(f"{machine}-{child.pid}-{rest}")
    for other in (f"elsewhere-{child.pid}-{rest}", "", "nobody", "a-b-c", f"{machine}-{'9' * 400}-x", f"{machine}-x-y"):
        assert not is_gone(other), other
