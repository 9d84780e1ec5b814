"""`pith clean` shows what is Pith's own, and removes it after a yes, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.commands import pith_, refused
from pith.cli import app
from pith.core.folders import lock_of, unfinished_folder, write_manifest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Work that was stopped, kept weights, a model that the user asked for, and folders that only look alike."""
    for name in ("results/weights/rtn-1", "smaller", "mine.unfinished", "mine.draft"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("x" * 3000)
    write_manifest(tmp_path / "results" / "weights" / "rtn-1", "kept")
    write_manifest(tmp_path / "smaller", "model")
    with pytest.raises(KeyboardInterrupt), unfinished_folder(tmp_path / "out.unfinished"):
        _stopped(tmp_path / "out.unfinished")
    return tmp_path


def _stopped(work: Path) -> None:
    (work / "part").write_text("x" * 2048)
    raise KeyboardInterrupt


def own(home: Path) -> list[str]:
    """Those of Pith's folders that are still there; all others must be."""
    assert (home / "smaller" / "config.json").is_file()
    assert (home / "mine.unfinished" / "config.json").is_file()
    assert (home / "mine.draft" / "config.json").is_file()
    return [name for name in ("results/weights/rtn-1", "out.unfinished") if (home / name).exists()]


def test_it_shows_and_removes_what_is_pith_s_own(home: Path) -> None:
    found = pith_("clean", str(home), "--dry-run")
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert [line.split()[-1] for line in lines] == [str(home / "out.unfinished"), str(home / "results/weights/rtn-1")]
    assert "2.0" in lines[0]
    assert "unfinished work" in lines[0]
    assert "kept weights" in lines[1]
    assert "2 folders, " in found.stderr
    assert "nothing was removed" in found.stderr
    assert len(own(home)) == 2
    found = pith_("clean", str(home), str(home / "results"), "--yes")
    assert found.exit_code == 0, found.output
    assert len(found.stdout.splitlines()) == 2, "each is shown once"
    assert own(home) == []
    assert not list(home.rglob("*.lock"))
    assert "there is nothing to remove" in pith_("clean", str(home), "--yes").stderr


@pytest.mark.parametrize(("answer", "left"), [("n\n", 2), ("", 2), ("\n", 2), ("y\n", 0)])
def test_it_asks(home: Path, answer: str, left: int) -> None:
    found = CliRunner().invoke(app, ["clean", str(home)], input=answer)
    assert found.exit_code == 0, found.output
    assert "remove 2 folders, " in found.stderr
    assert len(own(home)) == left


def test_what_another_process_uses_is_left(home: Path) -> None:
    with unfinished_folder(home / "running.unfinished"), lock_of(home / "results" / "weights" / "rtn-1"):
        found = pith_("clean", str(home), "--yes")
        assert found.exit_code == 0, found.output
        assert f"note: {home / 'running.unfinished'} is left: another process uses it" in found.stderr
        assert (home / "running.unfinished").is_dir()
        assert own(home) == ["results/weights/rtn-1"]


def test_no_link_leads_it_out_of_the_folder(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "link").symlink_to(home)
    (elsewhere / "out.unfinished").symlink_to(home / "out.unfinished")
    assert "there is nothing to remove" in pith_("clean", str(elsewhere), "--yes").stderr
    (home / "out.unfinished" / "link").symlink_to(elsewhere)
    (elsewhere / "mine").write_text("mine")
    assert pith_("clean", str(home / "out.unfinished"), "--yes").exit_code == 0
    assert own(home) == ["results/weights/rtn-1"]
    assert (elsewhere / "mine").read_text() == "mine"


def test_the_current_folder_is_the_default(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home / "results")
    assert "rtn-1" in pith_("clean", "--yes").stdout
    assert own(home) == ["out.unfinished"]


def test_a_mistake_is_one_line(home: Path) -> None:
    assert "is not a folder; allowed are folders" in refused("clean", str(home / "none"))
    assert "is not a folder" in refused("clean", str(home / "smaller" / "config.json"), "--yes")
    assert len(own(home)) == 2
