from __future__ import annotations

import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pith.core import Recipe, StoreError
from pith.measure import Answer, Costs
from pith.study import Store
from study.fakes import measurement
from study.filled import ANSWER, DENSE, filled
from study.postgres import PASSWORD


def test_what_is_put_is_there_after_reopening(where: str) -> None:
    with Store(where) as store:
        store.put("key", DENSE, {"recipe": "dense"})
    with Store(where) as store:
        assert store.get(Costs, "key") == DENSE
        assert store.get(Costs, "another") is None
        assert store.held(["another", "key"]) == {"key"}
        assert store.held([]) == set()
        assert len(store) == 1


def test_a_folder_is_made_on_the_way(tmp_path: Path) -> None:
    assert filled(tmp_path / "made" / "on the way").is_file()


def test_a_stored_result_is_never_overwritten(where: str) -> None:
    with Store(where) as store:
        store.put("key", DENSE, {})
        store.put("key", measurement(Recipe.parse("snapkv(budget=0.25)")).costs, {})
        assert store.get(Costs, "key") == DENSE


def test_two_processes_may_hold_one_store(where: str) -> None:
    with Store(where) as one, Store(one.where) as other:
        one.put("a", DENSE, {})
        other.put("b", DENSE, {})
        assert len(one) == len(other) == 2


def test_numbers_that_json_does_not_know_come_back(where: str) -> None:
    broken = replace(ANSWER.quality, value=float("inf"), high=float("inf"), scores=(float("inf"),) * ANSWER.quality.n)
    with Store(where) as store:
        store.put("key", replace(ANSWER, quality=broken), {})
        found = store.get(Answer, "key", (0.0, float("inf")))
        assert found is not None
        assert found.quality == broken


def test_a_piece_is_one_workers_at_a_time(where: str) -> None:
    with Store(where) as store, Store(where) as other:
        assert store.claim("key", "one", dead=60)
        assert not other.claim("key", "two", dead=60)
        assert other.claim("another", "two", dead=60)
        assert (store.claims("one"), store.claims("two")) == ({"key"}, {"another"})
        store.release("one")
        assert other.claim("key", "two", dead=60)


def test_what_is_stored_is_not_claimed(where: str) -> None:
    with Store(where) as store:
        store.put("key", DENSE, {})
        assert not store.claim("key", "one", dead=60)
        assert store.claims("one") == set()


def test_the_claim_of_a_worker_that_gives_no_sign_of_life_is_taken_over(where: str) -> None:
    with Store(where) as store:
        for worker in ("dead", "alive"):
            assert store.claim(worker, worker, dead=60)
        time.sleep(0.3)
        store.beat("alive")
        assert not store.claim("alive", "heir", dead=0.25)
        assert store.claim("dead", "heir", dead=0.25)
        assert (store.claims("dead"), store.claims("heir")) == (set(), {"dead"})


def test_only_one_of_many_gets_a_claim(where: str) -> None:
    with Store(where) as store, ThreadPoolExecutor(4) as workers:
        for key in map(str, range(5)):
            barrier = threading.Barrier(4)

            def claim(worker: int, key: str = key, barrier: threading.Barrier = barrier) -> bool:
                barrier.wait()
                return store.claim(key, f"{key} {worker}", dead=60)

            assert sum(workers.map(claim, range(4))) == 1


@pytest.mark.parametrize("ahead", [3600.0, 1e300])
def test_a_claim_whose_clock_lies_ahead_does_not_last_for_ever(tmp_path: Path, ahead: float) -> None:
    with Store(tmp_path) as store:
        assert store.claim("key", "early", dead=60)
        with closing(sqlite3.connect(tmp_path / "study.sqlite")) as database, database:
            database.execute("UPDATE pith_claim SET beat = beat + ?", (ahead,))
        assert store.claim("key", "heir", dead=60)
        assert not store.claim("key", "another", dead=60)
        assert store.holder("key") == "heir"


def test_one_claim_of_several_is_released(where: str) -> None:
    with Store(where) as store:
        for key in ("one", "two"):
            assert store.claim(key, "mine", dead=60)
        store.release("mine", "one")
        assert store.claims("mine") == {"two"}
        assert store.holder("one") is None


def test_who_waits_for_a_lock_learns_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pith.study.store.SOON", 0.05)
    path, said = filled(tmp_path), list[str]()
    with closing(sqlite3.connect(path, isolation_level=None)) as other, Store(tmp_path, 0.5, said.append) as store:
        store.put("unlocked", DENSE, {})
        assert said == []
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"database is locked \(waited 0\.5 s\); end the other program"):
            store.put("locked", DENSE, {})
        other.execute("ROLLBACK")
        assert len(said) == 1
        assert f"{path} has not answered for 0.05 s: another program may be writing to it" in said[0]
        store.put("locked", DENSE, {})
        assert len(store) == 3


def test_a_lock_that_ends_in_time_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pith.study.store.SOON", 0.05)
    path, said = filled(tmp_path), list[str]()
    with (
        closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other,
        Store(tmp_path, 60, said.append) as store,
    ):
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, other.execute, ["ROLLBACK"]).start()
        store.put("another", DENSE, {})
        assert len(store) == 2
    assert len(said) == 1


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    path = filled(tmp_path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StoreError, match="cannot be read or written: database is locked"):
            Store(tmp_path, patience=0.01)
    finally:
        other.close()


def test_the_file_is_durable_and_in_wal_mode(tmp_path: Path) -> None:
    with Store(tmp_path) as store, store._connected() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_other_tables_in_our_file_are_left_alone(tmp_path: Path) -> None:
    path = filled(tmp_path)
    database = sqlite3.connect(path)
    with database:
        database.execute("CREATE TABLE trials (number INTEGER)")
        database.execute("INSERT INTO trials VALUES (3)")
    database.close()
    with Store(tmp_path) as store, store._connected() as connection:
        assert store.url.startswith("sqlite")
        assert connection.exec_driver_sql("SELECT number FROM trials").scalar() == 3
        assert len(store) == 1


def test_a_newer_layout_on_a_server_is_refused(database: str) -> None:
    import psycopg

    with Store(database) as store:
        store.put("key", DENSE, {})
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE pith_layout SET layout = 99")
    with pytest.raises(StoreError, match="newer Pith") as error:
        Store(database)
    assert PASSWORD not in str(error.value)


def test_a_servers_place_is_shown_without_its_password(database: str) -> None:
    with Store(database) as store:
        assert PASSWORD not in store.place
        assert "127.0.0.1" in store.place
        assert store.shared
        assert PASSWORD in store.url
        assert store.url.startswith("postgresql+psycopg://")


def test_a_wrong_password_is_one_line_without_it(database: str) -> None:
    with pytest.raises(StoreError, match=r"cannot be read or written: .*password authentication failed") as error:
        Store(database.replace(PASSWORD, "another-word"))
    assert "another-word" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_server_that_is_not_there_is_one_line_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match=r"cannot be read or written: .*refused") as error:
        Store(f"postgresql://pith:{PASSWORD}@127.0.0.1:1/none")
    assert PASSWORD not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://me:hidden@host/db", "mysql cannot hold results; allowed is a folder, or postgresql"),
        ("sqlite:///study.sqlite", "sqlite cannot hold results; allowed is a folder"),
        ("postgresql://me:hidden@host:port/db", "is no database's URL"),
    ],
)
def test_a_url_that_cannot_be_is_one_line(url: str, says: str) -> None:
    with pytest.raises(StoreError, match=says) as error:
        Store(url)
    assert "hidden" not in str(error.value)


def test_a_driver_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install pith-lm\[postgres\]"):
        Store("postgresql://me@host/db")
