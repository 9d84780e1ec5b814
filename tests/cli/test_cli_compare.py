"""The command line on a tiny random model, end to end."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

import pith.measure
from cli.commands import pith_, refused
from contracts.tiny import tiny
from core.families import registered
from pith.core import ModelError

TASKS = "needle(keys=1),perplexity(scored=4)"
OPTIONS = ["--tasks", TASKS, "--length", "96", "--count", "2", "--budgets", "0.5"]


def test_it_compares_stores_and_resumes(model: str, tmp_path: Path) -> None:
    command = ["compare", model, "--recipe", "snapkv", "--recipe", "random_eviction", *OPTIONS, "--out", str(tmp_path)]
    first = pith_(*command)
    assert first.exit_code == 0, first.output
    assert "snapkv" in first.stdout
    assert str(tmp_path / "report.html") in first.stdout.replace("\n", "")
    assert "3/3 random_eviction(budget=0.5): measured" in first.stderr
    assert (tmp_path / "report.html").is_file()
    again = pith_(*command)
    assert again.exit_code == 0
    assert "3/3 random_eviction(budget=0.5): stored earlier" in again.stderr
    assert again.stdout == first.stdout


def test_json_is_all_that_stdout_holds(model: str, tmp_path: Path) -> None:
    found = pith_("compare", model, "--recipe", "snapkv", *OPTIONS, "--out", str(tmp_path), "--json")
    data = json.loads(found.stdout)
    assert [row["recipe"] for row in data["rows"]] == ["dense", "snapkv()"]
    assert [row["label"] for row in data["rows"]] == ["dense", "snapkv(budget=0.5)"]
    assert data["rows"][1]["cache_share"] == pytest.approx(0.5, abs=0.05)
    assert data["rows"][1]["quality"][data["tasks"][0]]["n"] == 2
    assert data["report"] == str(tmp_path / "report.html")
    with sqlite3.connect(data["results"]) as database:
        assert database.execute("SELECT count(*) FROM measurement").fetchone() == (2,)


def test_a_family_stands_beside_a_recipe(model: str, tmp_path: Path) -> None:
    words = ["--family", "eviction", "--recipe", "snapkv(window=8)", *OPTIONS, "--out", str(tmp_path), "--json"]
    with registered():
        found = pith_("compare", model, *words)
    assert found.exit_code == 0, found.output
    assert [row["label"] for row in json.loads(found.stdout)["rows"]] == [
        "dense", "snapkv(budget=0.5, window=8)", "random_eviction(budget=0.5)", "snapkv(budget=0.5)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--recipe", "snapkw"], "did you mean 'snapkv'?"),
        (["--recipe", "snapkv(budgett=1)"], "did you mean 'budget'?"),
        (["--recipe", "snapkv + random_eviction"], "both answer the question"),
        (["--recipe", "snapkv("], "this is no recipe"),
        (["--recipe", "none.toml"], "none.toml: No such file"),
        (["--family", "evictions"], "no family is called 'evictions'; did you mean 'eviction'?; there are: "),
        (["--family", "eviction", "--family", "nothing"], "no family is called 'nothing'; there are: "),
        (["--recipe", "snapkv(streaming_llm)"], "a parameter is given by name"),
        (["--budgets", "2.5"], "budget=2.5 makes no sense"),
        (["--tasks", "needles"], "no task is called 'needles'"),
        (["--dtype", "int3"], "dtype='int3' is not allowed"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], says: str, tmp_path: Path) -> None:
    assert says in refused("compare", "--out", str(tmp_path), *words)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    assert "holds no model" in refused("compare", str(tmp_path), "--out", str(tmp_path / "out"))


def test_a_length_past_the_models_positions(model: str, tmp_path: Path) -> None:
    line = refused("compare", model, "--length", "4096", "--out", str(tmp_path))
    assert "at most 256" in line


def test_results_that_are_damaged_are_left_alone(model: str, tmp_path: Path) -> None:
    (tmp_path / "study.sqlite").write_bytes(b"no database" * 100)
    assert "is damaged" in refused("compare", model, "--out", str(tmp_path))
    assert (tmp_path / "study.sqlite").read_bytes() == b"no database" * 100


def test_results_that_cannot_be_written(model: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "it is a file" in refused("compare", model, "--out", str(tmp_path / "file"))


def test_a_recipe_that_the_model_cannot_take_is_left_out(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = pith.measure.measure

    def measure(loaded, recipe, *rest, **named):  # type: ignore[no-untyped-def]
        if "streaming_llm" in str(recipe):
            raise ModelError("it has no rotary positions")
        return really(loaded, recipe, *rest, **named)

    monkeypatch.setattr(pith.measure, "measure", measure)
    recipes = ["--recipe", "streaming_llm", "--recipe", "snapkv"]
    found = pith_("compare", model, *recipes, *OPTIONS, "--out", str(tmp_path))
    assert found.exit_code == 0
    assert "streaming_llm(budget=0.5) is left out: it has no rotary positions" in found.stderr
    assert "was left out: it has no rotary positions" in (tmp_path / "report.html").read_text()


def test_ctrl_c_says_that_the_same_command_goes_on(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pith.measure, "measure", measure)
    found = pith_("compare", model, "--out", str(tmp_path))
    assert found.exit_code == 130
    assert found.stderr.splitlines()[-1].endswith("the same command goes on from there")


def test_the_report_is_written_anew(model: str, tmp_path: Path) -> None:
    command = ["compare", model, "--recipe", "snapkv", *OPTIONS, "--out", str(tmp_path)]
    assert pith_(*command).exit_code == 0
    (tmp_path / "report.html").unlink()
    shutil.copytree(tmp_path, tmp_path / "moved")
    assert pith_(*command[:-1], str(tmp_path / "moved")).exit_code == 0
    assert (tmp_path / "moved" / "report.html").is_file()


def test_the_tiny_models_of_the_laws_are_no_models_for_the_command_line(tmp_path: Path) -> None:
    tiny("llama_gqa").save_pretrained(tmp_path)
    assert "the tokenizer of" in refused("compare", str(tmp_path), "--out", str(tmp_path / "out"))
