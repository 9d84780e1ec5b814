from __future__ import annotations

import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pith.core import Recipe, StoreError
from pith.measure import Costs
from pith.study import Store
from study.fakes import measurement
from study.postgres import PASSWORD

DENSE = measurement(Recipe()).costs


def filled(directory: Path) -> Path:
    with Store(directory) as store:
        store.put("key", DENSE, {"recipe": "dense"})
    return directory / "study.sqlite"


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
    nothing = replace(DENSE, speed=replace(DENSE.speed, decode=float("inf")))
    with Store(where) as store:
        store.put("key", nothing, {})
        assert store.get(Costs, "key") == nothing


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


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    path.write_bytes(b"these are somebody's notes\n" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="damaged") as error:
        Store(tmp_path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_truncated_file_is_refused_and_left_alone(tmp_path: Path, keep: float) -> None:
    path = filled(tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    before = path.read_bytes()
    with pytest.raises(StoreError, match="damaged"):
        Store(tmp_path)
    assert path.read_bytes() == before


def test_a_damaged_page_is_found_at_once(tmp_path: Path) -> None:
    path = filled(tmp_path)
    whole = bytearray(path.read_bytes())
    whole[4096 : 4096 + 64] = b"\xff" * 64
    path.write_bytes(whole)
    with pytest.raises(StoreError, match="damaged"):
        Store(tmp_path)


def test_a_row_that_is_no_measurement_is_said_and_kept(tmp_path: Path) -> None:
    path = filled(tmp_path)
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE pith_piece SET result = '{}'")
    database.close()
    with Store(tmp_path) as store, pytest.raises(StoreError, match="damaged"):
        store.get(Costs, "key")
    with Store(tmp_path) as store:
        assert len(store) == 1


def test_a_newer_layout_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = filled(tmp_path)
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer Pith"):
        Store(tmp_path)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE holidays (day TEXT)")
    database.commit()
    database.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="no results file of Pith"):
        Store(tmp_path)
    assert path.read_bytes() == before


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(StoreError, match="it is a file"):
        Store(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(StoreError, match="cannot hold the results"):
        Store(tmp_path / "taken" / "below")


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    path = filled(tmp_path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StoreError, match="cannot be read or written: database is locked"):
            Store(tmp_path, patience=0.01)
    finally:
        other.close()


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.sqlite").mkdir()
    with pytest.raises(StoreError, match="cannot be read or written"):
        Store(tmp_path)


def test_a_store_of_whole_measurements_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE measurement (key TEXT PRIMARY KEY, made TEXT, question TEXT, result TEXT) STRICT;"
        f"PRAGMA application_id = {int.from_bytes(b'pith')}; PRAGMA user_version = 1;"
    )
    database.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"older Pith .*it was left as it is: name another folder"):
        Store(tmp_path)
    assert path.read_bytes() == before


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
