"""The environment is plain data, and says from which commit it comes."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path

import pytest
import torch

from contracts.tiny import tiny
from pith.core.machine import processor
from pith.measure.environment import commit, environment


def test_it_is_plain_data_that_names_versions_machine_and_settings() -> None:
    found = environment(tiny("llama_mha"), {"seed": 3, "length": 7})
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert (found["dtype"], found["device"]) == ("float32", "cpu")
    assert (found["seed"], found["length"]) == (3, 7)
    assert found["cores"] >= 1
    assert found["processor"] == processor() != ""


def test_the_commit_is_that_of_piths_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pith.measure.environment._PACKAGE", tmp_path / "src" / "pith")
    assert commit() is None, "installed, not checked out"

    def git(*words: str) -> str:
        name = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *name, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    git("init")
    assert commit() is None, "nothing was committed yet"
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    whole = git("rev-parse", "HEAD").strip()
    assert commit() == whole
    (tmp_path / "file").write_text("two")
    assert commit() == f"{whole}-dirty"
    monkeypatch.setenv("PATH", "")
    assert commit() is None, "no git here"
