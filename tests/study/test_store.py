from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pith.core import Recipe, StoreError
from pith.measure import Costs
from pith.study import Store
from study.fakes import measurement

DENSE = measurement(Recipe()).costs


def filled(directory: Path) -> Path:
    with Store(directory) as store:
        store.put("key", DENSE, {"recipe": "dense"})
    return directory / "study.sqlite"


def test_what_is_put_is_there_after_reopening(tmp_path: Path) -> None:
    filled(tmp_path / "made" / "on the way")
    with Store(tmp_path / "made" / "on the way") as store:
        assert store.get(Costs, "key") == DENSE
        assert store.get(Costs, "another") is None
        assert len(store) == 1


def test_a_stored_result_is_never_overwritten(tmp_path: Path) -> None:
    filled(tmp_path)
    with Store(tmp_path) as store:
        store.put("key", measurement(Recipe.parse("snapkv(budget=0.25)")).costs, {})
        assert store.get(Costs, "key") == DENSE


def test_two_processes_may_hold_one_file(tmp_path: Path) -> None:
    with Store(tmp_path) as one, Store(tmp_path) as other:
        one.put("a", DENSE, {})
        other.put("b", DENSE, {})
        assert len(one) == len(other) == 2


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
