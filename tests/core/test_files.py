"""A file is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from pith.core import StoreError, write_whole


def test_it_makes_the_folder_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "made" / "on the way" / "file.txt"
    assert write_whole(path, b"one") == path
    assert write_whole(path, b"two").read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_what_stood_there_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_whole(tmp_path / "file.txt", b"one")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match=r"file\.txt cannot be written: No space left on device"):
        write_whole(path, b"two")
    monkeypatch.undo()
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]
