"""Downloads are kept where the user's environment says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pith.core import InputError
from pith.core.folders import write_manifest
from pith.models.cached import ORIGIN, cache_folder, fetched_folder, model_folder, origin


def test_the_cache_folder_is_the_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PITH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / "home" / ".cache" / "pith"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification says that such a value is ignored
    assert cache_folder() == tmp_path / "home" / ".cache" / "pith"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared" / "pith"
    monkeypatch.setenv("PITH_CACHE", "~/own")
    assert cache_folder() == tmp_path / "home" / "own"
    assert model_folder("smollm2") == tmp_path / "home" / "own" / "models" / "smollm2"
    monkeypatch.setenv("PITH_CACHE", "~nobody-of-that-name/x")
    with pytest.raises(InputError, match=r"PITH_CACHE .* there is no such user"):
        cache_folder()


def test_only_a_folder_of_pith_s_is_a_fetched_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PITH_CACHE", str(tmp_path))
    folder = model_folder("smollm2")
    assert fetched_folder("smollm2") is None
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert fetched_folder("smollm2") is None
    assert origin(folder) == {}
    (folder / ORIGIN).write_text('{"from": "hub"}')
    write_manifest(folder, "kept")
    assert fetched_folder("smollm2") == folder
    assert origin(folder) == {"from": "hub"}
