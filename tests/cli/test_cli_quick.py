"""What makes a comparison shorter on the command line: no times, fewer runs, `--quick`; and folders below `~`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.commands import pith_, refused

OPTIONS = ["--tasks", "needle(keys=1),perplexity(scored=4)", "--length", "96", "--count", "2", "--budgets", "0.5"]


def test_without_times_nothing_is_timed_and_every_place_says_so(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pith.measure.cost.run_rounds", None)
    words = ["--recipe", "snapkv", *OPTIONS, "--no-times", "--json"]
    found = pith_("compare", model, *words, "--out", str(tmp_path / "first"))
    assert found.exit_code == 0, found.output
    data = json.loads(found.stdout)
    assert [row["costs"]["speed"] for row in data["rows"]] == [None, None]
    assert data["rows"][1]["cache_share"] == pytest.approx(0.5, abs=0.05)
    assert data["settings"]["runs"] == 0
    assert "times were not measured" in " ".join(data["verdict"]) or "Take none" in data["verdict"][0]
    charts = tmp_path / "first" / "charts"
    assert (charts / "table.md").read_text().count("| not measured |") == 2
    assert (charts / "table.tex").read_text().count("not measured") == 2
    page = (tmp_path / "first" / "report.html").read_text()
    assert "Times were not measured." in page
    assert "0.00x" not in page
    assert "decode-time.svg" not in [file.name for file in charts.iterdir()]
    again = pith_("compare", model, "--from", data["run"], "--out", str(tmp_path / "again"), "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["settings"] == data["settings"]
    there = pith_("compare", model, "--from", data["run"])
    assert "not measured" in there.stdout
    assert "2/2 snapkv(budget=0.5): stored earlier" in there.stderr


def test_quick_sets_what_is_not_given_and_runs_are_recorded(model: str, tmp_path: Path) -> None:
    words = ["--recipe", "snapkv", "--tasks", "perplexity(scored=4)", "--length", "64", "--quick"]
    found = pith_("compare", model, *words, "--out", str(tmp_path), "--json")
    assert found.exit_code == 0, found.output
    data = json.loads(found.stdout)
    assert data["tasks"] == ["perplexity(length=64, scored=4, count=8)"]
    assert (data["settings"]["length"], data["settings"]["runs"]) == (64, 3)
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["runs"] == 3
    start = found.stderr.splitlines()
    assert start[0].startswith(f"{model}: LlamaForCausalLM, ")
    assert start[1].startswith("to measure: the dense model and 1 recipe, each by perplexity (8 examples of 64 tokens)")
    assert "times by 3 pairs of runs at 64 + 32 tokens each" in start[1]
    line = refused("compare", model, "--runs", "3", "--no-times", "--out", str(tmp_path))
    assert "--runs 3 is not allowed with --no-times" in line
    assert "goes without --quick" in refused("compare", "--quick", "--from", str(tmp_path / "run.json"))


def test_a_tilde_is_the_home_folder(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = ["--recipe", "snapkv", "--tasks", "perplexity(scored=4)", "--length", "64", "--count", "2", "--no-times"]
    found = pith_("compare", model, *words, "--out=~/first", "--store=~/kept")
    assert found.exit_code == 0, found.output
    again = pith_("compare", model, "--from=~/first/run.json", "--store=~/kept")
    assert "2/2 snapkv(budget=0.5): stored earlier" in again.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "kept"]
