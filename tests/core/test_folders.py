"""Pith's own folders are known by markers, verified by hashes, and nothing else is ever removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from pith.core import InputError, ModelError
from pith.core.folders import (
    MANIFEST,
    WORK,
    lock_of,
    marker_kind,
    new_folder,
    own_folders,
    remove_own,
    require_whole,
    unfinished_folder,
    write_manifest,
)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "kept"
    (folder / "inner").mkdir(parents=True)
    for name in ("config.json", "weights", "inner/template"):
        (folder / name).write_text(f"the text of {name}")
    write_manifest(folder, "kept")
    return folder


def stopped(path: Path) -> None:
    """Work that ends with an error after it has written a file."""
    path.write_text(path.name)
    raise ZeroDivisionError


def changed(folder: Path, exact: bool = False) -> str:
    with pytest.raises(ModelError) as caught:
        require_whole(folder, exact=exact)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_file_is_compared_with_its_hash(kept: Path) -> None:
    require_whole(kept)
    require_whole(kept, exact=True)
    for name in ("config.json", "weights", "inner/template"):
        text = (kept / name).read_text()
        (kept / name).write_text(f"{text}.")
        assert changed(kept).startswith(f"{name} of {kept} is damaged or was changed")
        (kept / name).unlink()
        assert changed(kept) == f"'{kept / name}' cannot be read: there is no such file"
        (kept / name).write_text(text)
    require_whole(kept)


def test_what_the_manifest_does_not_list(kept: Path) -> None:
    (kept / "mine").write_text("mine")
    require_whole(kept)
    assert "has no hash of mine" in changed(kept, exact=True)
    with pytest.raises(ModelError, match="has no hash of mine; delete the manifest if that is meant"):
        require_whole(kept, ("config.json", "mine", "not there"))


@pytest.mark.parametrize("text", ["", "5", "[1]", "{}", '{"pith": 1}', '{"pith": 1, "files": {"a": 5}}', "[" * 100_000])
def test_a_damaged_manifest(kept: Path, text: str) -> None:
    (kept / MANIFEST).write_text(text)
    assert "is missing or damaged" in changed(kept)
    assert marker_kind(kept) is None


def test_an_empty_manifest_and_names_that_lead_outside(kept: Path) -> None:
    (kept / MANIFEST).write_text('{"pith": 1, "kind": "kept", "files": {}}')
    assert "has no hash of config.json" in changed(kept)
    for name in ("../kept/config.json", "/etc/hostname"):
        files = json.dumps({"config.json": "", name: ""})
        (kept / MANIFEST).write_text(f'{{"pith": 1, "kind": "kept", "files": {files}}}')
        found = changed(kept)
        assert "damaged or was changed" in found or "is not a file of that folder" in found
        (kept / MANIFEST).write_text(f'{{"pith": 1, "kind": "kept", "files": {{"{name}": ""}}}}')
        with pytest.raises(ModelError, match="is not a file of that folder"):
            require_whole(kept, ())


def test_a_folder_without_a_manifest_is_not_compared_unless_it_must_be(kept: Path) -> None:
    (kept / MANIFEST).unlink()
    require_whole(kept)
    assert "is missing or damaged" in changed(kept, exact=True)


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    for name in ("out.draft", "out.unfinished"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "deep" / "out") as draft:
        stopped(draft / "half")
    assert sorted(tmp_path.rglob("*")) == before
    with new_folder(tmp_path / "deep" / "out") as draft:
        assert marker_kind(draft.parent) == "unfinished"
        assert not remove_own(draft.parent), "a process works in it"
        (draft / "whole").write_text("whole")
    assert [one.name for one in (tmp_path / "deep").iterdir()] == ["out"]
    assert (tmp_path / "deep" / "out").stat().st_mode == (tmp_path / "out.draft").stat().st_mode
    with pytest.raises(OSError, match="not empty"), new_folder(tmp_path / "out.draft") as draft:
        (draft / "new").write_text("new")
    assert sorted(set(tmp_path.rglob("*")) - set(before)) == [
        tmp_path / one for one in ("deep", "deep/out", "deep/out/whole")
    ]


def test_unfinished_work_is_kept_after_an_error_and_removed_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    with pytest.raises(ZeroDivisionError), unfinished_folder(folder):
        raise ZeroDivisionError
    assert not folder.exists(), "there was no part in it"
    with pytest.raises(ZeroDivisionError), unfinished_folder(folder):
        stopped(folder / "part")
    with unfinished_folder(folder):
        assert (folder / "part").read_text() == "part"
        with pytest.raises(InputError, match="another process works in"), unfinished_folder(folder):
            pass
        assert not remove_own(folder)
        assert (folder / "part").is_file()
    assert not folder.exists()


def test_a_folder_that_is_not_pith_s_own_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(InputError, match="is not Pith's own"), unfinished_folder(folder):
        pass
    with pytest.raises(InputError, match="carries no marker"):
        remove_own(folder)
    assert folder.is_dir()


def test_only_marked_folders_are_found_and_no_link_is_followed(kept: Path, tmp_path: Path) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    for name in ("home/a/model", "home/b", "away/work"):
        (tmp_path / name).mkdir(parents=True)
    (away / "work" / WORK).write_text('{"pith": 1}')
    (home / "link").symlink_to(away)
    (home / "a" / "linked").symlink_to(away / "work")
    (home / "b" / WORK).symlink_to(away / "work" / WORK)
    (home / "a" / "model" / "config.json").write_text("{}")
    write_manifest(home / "a" / "model", "model")
    assert list(own_folders(home)) == []
    kept.rename(home / "a" / "kept")
    (away / "work").rename(home / "a" / "model" / "work")
    assert list(own_folders(home)) == [(home / "a" / "kept", "kept"), (home / "a" / "model" / "work", "unfinished")]
    with pytest.raises(InputError, match="carries no marker"):
        remove_own(home / "a" / "model")


def test_what_a_process_uses_is_not_removed(kept: Path) -> None:
    with FileLock(lock_of(kept).lock_file):
        assert not remove_own(kept)
        assert (kept / "weights").is_file()
    assert remove_own(kept)
    assert not kept.exists()
