from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from pith.core import StoreError
from pith.study import Store
from study.filled import DENSE, filled


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


def test_a_file_cut_anywhere_is_refused_and_left_alone(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole").read_bytes()
    lengths = {0, 1, 15, 16, 50, 99, 100, 101, 511, 512, 1024, *range(4096, len(whole), 2048), len(whole) - 1}
    for length in sorted(lengths):
        path = tmp_path / str(length) / "study.sqlite"
        path.parent.mkdir()
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match="it was left as it is: move it away, or name another folder"):
            Store(path.parent)
        assert path.read_bytes() == whole[:length], length


def test_an_empty_file_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "study.sqlite").touch()
    with pytest.raises(StoreError, match="is not a complete store: it is empty"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["study.sqlite"]
    assert (tmp_path / "study.sqlite").stat().st_size == 0


def test_what_is_left_of_a_file_that_went_is_not_written_over(tmp_path: Path) -> None:
    left = tmp_path / "study.sqlite-wal"
    left.write_bytes(b"pages")
    with pytest.raises(StoreError, match=r"-wal is not a complete store: study\.sqlite is missing beside it"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["study.sqlite-wal"]


def test_the_file_appears_whole_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    Store(tmp_path).close()
    assert [path.name for path in tmp_path.iterdir()] == ["study.sqlite"]
    with closing(sqlite3.connect(tmp_path / "study.sqlite")) as database:
        made = dict(database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        assert set(made) == {"pith_piece", "pith_claim"}
        assert all(text.rstrip().endswith("STRICT") for text in made.values())
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("links", [True, False])
def test_many_that_come_first_at_once_hold_one_store(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError

    if not links:
        monkeypatch.setattr("os.link", no_links)
        Store(tmp_path).close()  # without links only one may come first

    def put(number: int) -> None:
        with Store(tmp_path) as store:
            store.put(str(number), DENSE, {})

    with ThreadPoolExecutor(8) as workers:
        list(workers.map(put, range(8)))
    with Store(tmp_path) as store:
        assert len(store) == 8


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("DROP TABLE pith_claim", "it has no table pith_claim"),
        ("DROP TABLE pith_piece; CREATE VIEW pith_piece AS SELECT 1 AS key", "it has no table pith_piece"),
        ("CREATE TRIGGER t AFTER INSERT ON pith_piece BEGIN DELETE FROM pith_piece; END", "it has a trigger"),
        ("CREATE VIEW v AS SELECT 1", "it has a view"),
        ("PRAGMA user_version = 0", "it has no layout"),
        ("PRAGMA user_version = -5", "it has no layout"),
        ("PRAGMA application_id = 0", "no results file of Pith"),
    ],
)
def test_a_file_of_another_schema_is_refused_and_left_alone(tmp_path: Path, change: str, says: str) -> None:
    path = filled(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(change)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=says):
        Store(tmp_path)
    assert path.read_bytes() == before


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
