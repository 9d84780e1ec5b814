"""A model's name means one place, or is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pith.core import ModelError
from pith.models.locate import NAMES, is_local, locate


def refused(name: str) -> str:
    with pytest.raises(ModelError) as caught:
        locate(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_of_pith_s_go_before_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PITH_CACHE", str(tmp_path / "cache"))
    for name in NAMES:
        (tmp_path / name).mkdir()
        assert not is_local(name)
        assert is_local(f"./{name}")
    assert locate("builtin").folder == Path(str(locate("builtin").source))
    assert refused("smollm2") == "smollm2 is not on this machine; get it with: pith models get smollm2"
    assert "the folder smollm2 holds no model: it is empty" in refused("./smollm2")


def test_an_embedder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PITH_CACHE", str(tmp_path))
    assert refused("minilm").startswith("minilm is an embedder")


def test_files(tmp_path: Path) -> None:
    (tmp_path / "x.GGUF").write_bytes(b"GGUF")
    place = locate(str(tmp_path / "x.GGUF"))
    assert (place.source, place.gguf, place.folder) == (str(tmp_path), "x.GGUF", None)
    assert place.options == {"local_files_only": True, "trust_remote_code": False, "gguf_file": "x.GGUF"}
    (tmp_path / "config.json").write_text("{}")
    assert (
        f"is a file, and not a GGUF file; allowed are a name of `pith models`, a model's folder, a GGUF file, or a "
        f"hub id ({tmp_path} is one)" in refused(str(tmp_path / "config.json"))
    )
    assert "there is no file 'none/x.gguf'" in refused("none/x.gguf")
