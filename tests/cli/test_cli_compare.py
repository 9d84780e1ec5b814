"""The command line on a tiny random model, end to end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import pith.study.here
from cli.commands import pith_, refused
from contracts.tiny import tiny
from core.families import registered
from pith.cli.command import command_line
from pith.core import ModelError
from pith.measure.seconds import run_once
from pith.models import Subject

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
    assert data["rows"][1]["answers"][data["tasks"][0]]["quality"]["n"] == 2
    assert data["rows"][1]["costs"]["bytes"]["tokens"] == 96
    assert data["rows"][1]["verdicts"][data["tasks"][0]] in ("better", "worse", "not distinguishable")
    assert set(data["calibrations"]) == set(data["tasks"])
    assert data["calibrations"][data["tasks"][0]]["oracle"] == 1.0
    assert data["settings"]["length"] == 96
    assert data["report"] == str(tmp_path / "report.html")
    assert data["run"] == str(tmp_path / "run.json")
    with closing(sqlite3.connect(data["results"])) as database:
        assert database.execute("SELECT count(*) FROM pith_piece").fetchone() == (2 * 3,)


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
        (["--recipe", "none.toml"], "recipe 'none.toml' cannot be read: there is no such file"),
        (["--family", "evictions"], "no family is called 'evictions'; did you mean 'eviction'?; there are: "),
        (["--family", "eviction", "--family", "xyz"], "no family is called 'xyz'; there are: "),
        (["--recipe", "snapkv(streaming_llm)"], "a parameter is given by name"),
        (["--budgets", "2.5"], "budget=2.5 makes no sense"),
        (["--tasks", "needles"], "no task is called 'needles'"),
        (["--dtype", "int3"], "dtype='int3' is not allowed"),
        (["--query", "known"], "query='known' is not allowed; allowed is aware or agnostic"),
        (["--tasks", "needle(query='agnostic'),vt"], "their scores do not compare"),
        (["--lengths", "512,many"], "'many' is no length"),
        (["--at-bytes", "2"], "'2' is no size"),
        (["--store", "mysql://me:hidden@host/db"], "mysql cannot hold results"),
        (["--from", "none/run.json"], "'none/run.json' cannot be read: there is no such file"),
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
    def refusing(who: Subject, *rest: Any) -> Any:
        if "streaming_llm" in str(who.recipe):
            raise ModelError("it has no rotary positions")
        return run_once(who, *rest)

    monkeypatch.setattr("pith.measure.seconds.run_once", refusing)
    recipes = ["--recipe", "streaming_llm", "--recipe", "snapkv"]
    found = pith_("compare", model, *recipes, *OPTIONS, "--out", str(tmp_path))
    assert found.exit_code == 0
    assert "streaming_llm(budget=0.5) is left out: it has no rotary positions" in found.stderr
    assert "was left out: it has no rotary positions" in (tmp_path / "report.html").read_text()


def test_ctrl_c_says_that_the_same_command_goes_on(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def costs(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pith.study.here, "costs_together", costs)
    found = pith_("compare", model, *OPTIONS, "--out", str(tmp_path))
    assert found.exit_code == 130, found.output
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


def test_workers_find_what_one_process_finds(model: str, tmp_path: Path) -> None:
    data = []
    for name, more in {"alone": [], "shared": ["--workers", "2"]}.items():
        words = ["--recipe", "snapkv", *OPTIONS, "--out", str(tmp_path / name), "--json"]
        found = pith_("compare", model, *words, *more)
        assert found.exit_code == 0, found.output
        data.append(json.loads(found.stdout))
    assert "4/4 answers" in found.stderr
    qualities = [[{t: a["quality"] for t, a in row["answers"].items()} for row in one["rows"]] for one in data]
    assert qualities[0] == qualities[1]
    assert "4/4 answers" not in pith_("compare", model, *words, *more).stderr


def test_a_mistake_in_a_worker_is_one_line(model: str, tmp_path: Path) -> None:
    words = ["--workers", "2", "--recipe", "snapkv", "--length", "96", "--lengths", "96,4096"]
    line = refused("compare", model, *words, "--count", "2", "--out", str(tmp_path))
    assert "at most 256" in line


def test_each_task_stands_once_at_each_length(model: str, tmp_path: Path) -> None:
    words = ["--recipe", "snapkv", *OPTIONS, "--lengths", "64,96", "--out", str(tmp_path), "--json"]
    data = json.loads(pith_("compare", model, *words).stdout)
    assert data["tasks"] == [
        "needle(length=64, count=2, keys=1)", "needle(length=96, count=2, keys=1)",
        "perplexity(length=64, scored=4, count=2)", "perplexity(length=96, scored=4, count=2)",
    ]  # fmt: skip
    assert data["settings"]["length"] == 96


def test_a_query_reaches_the_tasks_that_have_one(model: str, tmp_path: Path) -> None:
    haystack = tmp_path / "mine.txt"
    haystack.write_text("The sea was calm. A boat came in.\n")
    words = ["--recipe", "snapkv", *OPTIONS, "--query", "agnostic", "--haystack", str(haystack)]
    words += ["--out", str(tmp_path / "out"), "--json"]
    data = json.loads(pith_("compare", model, *words).stdout)
    assert "query='agnostic'" in data["tasks"][0]
    assert f"haystack='{haystack}'" in data["tasks"][0]
    assert "query" not in data["tasks"][1]
    assert "haystack" not in data["tasks"][1]


def test_recipes_meet_measured_bytes_or_are_left_out(model: str, tmp_path: Path) -> None:
    words = ["--tasks", TASKS, "--length", "96", "--count", "2", "--out", str(tmp_path), "--json"]
    recipes = ["--recipe", "streaming_llm", "--recipe", "random_eviction"]
    found = pith_("compare", model, *recipes, *words, "--at-bytes", "6KiB")
    assert found.exit_code == 0, found.output
    data = json.loads(found.stdout)
    assert len(data["rows"]) + len(data["refused"]) == 3
    assert len(data["rows"]) > 1
    assert all(row["costs"]["bytes"]["prefill"] <= 6 << 10 for row in data["rows"][1:])
    assert "no recipe can meet the budget" in refused("compare", model, *recipes, *words, "--at-bytes", "1B")


def test_a_study_is_repeated_by_its_record(model: str, tmp_path: Path) -> None:
    words = ["--recipe", "snapkv", *OPTIONS, "--seed", "7", "--out", str(tmp_path / "first"), "--json"]
    first = json.loads(pith_("compare", model, *words).stdout)
    assert "name the model in the command as well" in refused("compare", "--from", first["run"])
    repeated = pith_("compare", model, "--from", first["run"], "--out", str(tmp_path / "again"), "--json")
    assert repeated.exit_code == 0, repeated.output
    again = json.loads(repeated.stdout)
    assert again["tasks"] == first["tasks"]
    assert again["settings"] == first["settings"]
    for mine, other in zip(again["rows"], first["rows"], strict=True):
        assert mine["recipe"] == other["recipe"]
        assert {t: a["quality"] for t, a in mine["answers"].items()} == {
            t: a["quality"] for t, a in other["answers"].items()
        }
    there = pith_("compare", "--from", first["run"], "--trust-files")
    assert "2/2 snapkv(budget=0.5): stored earlier" in there.stderr
    assert (tmp_path / "first" / "run.json").read_text() == (tmp_path / "again" / "run.json").read_text()


def recorded(folder: Path, **changes: object) -> str:
    record = {
        "command": "pith compare", "model": "builtin", "recipes": ["dense"], "tasks": ["needle()"], "refused": {},
        "settings": {"length": 64, "seed": 0, "batch_size": 1, "dtype": "auto"},
        "hashes": {"model": "0" * 16, "tokenizer": "0" * 16, "heldout": "0" * 16}, "files": {}, "environment": {},
    }  # fmt: skip
    path = folder / "run.json"
    path.write_text(json.dumps({**record, **changes}))
    return str(path)


def test_a_repetition_takes_no_other_question(model: str, tmp_path: Path) -> None:
    path = recorded(tmp_path)
    assert "goes without --seed" in refused("compare", "--seed", "1", "--from", path)
    assert "has other weights: its hash is" in refused("compare", "--from", path)
    assert "has other weights: its hash is" in refused("compare", model, "--from", path)
    assert "it has no hash of the heldout" in refused("compare", "--from", recorded(tmp_path, hashes={}))


def test_a_record_runs_no_code_that_lies_beside_it(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\ndef f(doc): return 'x'\n")
    (tmp_path / "evil.yaml").write_text(
        "task: evil\ndataset_path: json\ndoc_to_text: !function evil.f\ndoc_to_target: x\noutput_type: generate_until\n"
    )
    path = recorded(tmp_path, tasks=[f"lm_eval(task='evil', include={str(tmp_path)!r})"])
    line = refused("compare", "--from", path, "--out", str(tmp_path / "out"))
    assert "files in it can run code; if you trust whoever wrote run.json, add --trust-files" in line
    assert not mark.exists()
    line = refused("compare", "--from", path, "--out", str(tmp_path / "out"), "--trust-files")
    assert "it has no hash of" in line
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


def test_ctrl_c_with_workers_ends_them_and_leaves_no_claim(model: str, tmp_path: Path) -> None:
    words = ["--tasks", "perplexity(scored=4)", "--length", "96", "--count", "1000", "--batch-size", "1"]
    command = [sys.executable, "-m", "pith", "compare", model, "--workers", "2", "--recipe", "snapkv", *words]
    command += ["--out", str(tmp_path)]
    child = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        # whoever runs the suite in the background has it ignore Ctrl-C, and its children with it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        while child.poll() is None and not claims(tmp_path / "study.sqlite"):
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)
        _, stderr = child.communicate(timeout=60)
        assert child.returncode == 130
        assert stderr.splitlines()[-1].endswith("the same command goes on from there")
        assert claims(tmp_path / "study.sqlite") == 0
    finally:
        child.kill()


def test_a_password_reaches_neither_page_nor_record(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["pith", "compare", "--store", "postgresql://me:hidden@host/db", "--ray=ray://host:10001"]
    monkeypatch.setattr(sys, "argv", words)
    assert command_line() == "pith compare --store 'postgresql://me:***@host/db' --ray=ray://host:10001"


def claims(path: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM pith_claim").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0
