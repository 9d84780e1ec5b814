"""Users' files are read through one guard; a file is written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pith.core import (
    InputError,
    StoreError,
    read_bytes,
    read_json,
    read_text,
    require_file,
    resolve_path,
    user_path,
    write_whole,
)


def test_a_text_is_read_without_its_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content in (b"a\xc3\xa9\nb", b"\xef\xbb\xbfa\xc3\xa9\r\nb"):
        path.write_bytes(content)
        assert read_text(path) == "a\u00e9\nb"
    assert read_bytes(path)[:3] == b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("missing", "there is no such file"),
        ("text/below", "there is no such file"),
        (".", "it is a folder; allowed is a file"),
        ("pipe", "it is a pipe, a device or a socket; allowed is a regular file"),
        ("/dev/zero", "it is a pipe, a device or a socket"),
        ("/proc/kmsg", "files of /proc and /sys are not read"),
        ("/proc/self/status", "files of /proc and /sys are not read"),
        ("link", "files of /proc and /sys are not read"),
        ("circle", "its links lead in a circle"),
        ("large", "it has 1.00 TiB; allowed are at most 256 MiB"),
        ("latin", r"it is not UTF-8 \(byte 1\)"),
        ("a\0b", "the path holds a NUL character"),
        ("x" * 300, "the path is too long"),
        ("y/" * 3000, "the path is too long"),
        ("~nosuchuser/x", "there is no such user"),
        ("\ud800", "the path holds characters that are not allowed"),
    ],
)
def test_what_cannot_be_read_is_one_line(path: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("text").write_text("text")
    Path("latin").write_bytes(b"a\xff")
    Path("circle").symlink_to("circle")
    Path("link").symlink_to("/proc/self/maps")
    with Path("large").open("wb") as large:
        large.truncate(2**40)
    with pytest.raises(InputError, match=f"^text '.*' cannot be read: {says}") as caught:
        read_text(path, label="text ")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_no_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a").write_text("a")
    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(InputError, match="cannot be read: permission denied"):
        read_text(tmp_path / "a")


def test_a_file_that_is_replaced_by_a_pipe_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    os.mkfifo(path)
    monkeypatch.setattr("pith.core.files.require_file", lambda *_, **__: path)
    with pytest.raises(InputError, match="it is a pipe"):
        read_text(path)


def test_the_size_is_bounded_where_the_caller_says(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345678")
    assert read_bytes(path, limit=8) == b"12345678"
    with pytest.raises(StoreError, match="it has 8 B; allowed are at most 7 B"):
        require_file(path, limit=7, error=StoreError)
    assert require_file(path, limit=None) == path


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a.txt") == tmp_path / "a.txt"
    assert user_path("a/~") == Path("a/~")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is not JSON"),
        ('{"a": 1', "it is not JSON \\(line 1: "),
        ("[1]", "it holds a JSON list, not an object"),
        ("null", "it holds a JSON NoneType"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", r"it is not JSON \(a number has too many digits"),
    ],
)
def test_what_is_no_json_object_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"cannot be read: {says}"):
        read_json(path)
    path.write_text('\ufeff{"a": [1]}', encoding="utf-8")
    assert read_json(path) == {"a": [1]}


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_a_path_that_cannot_be_written_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        write_whole(tmp_path / name, b"one")
    assert not list(tmp_path.iterdir())


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


def test_a_path_that_cannot_be_resolved_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(InputError, match="its links lead in a circle"):
        resolve_path(tmp_path / "circle")
    with pytest.raises(InputError, match="the path is too long"):
        user_path(tmp_path / ("x" * 300))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    assert resolve_path(tmp_path / "link") == (tmp_path / "folder").resolve()
