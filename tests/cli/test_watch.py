from __future__ import annotations

import io

import pytest

from pith.cli.watch import TerminalWatch
from pith.study import Question, Study
from study.fakes import measurement, question


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watched(asked: Question, refused: str = "") -> None:
    study = Study(asked)
    with TerminalWatch(len(asked.recipes)) as watch:
        for recipe in asked.recipes:
            watch.begins(recipe)
            watch.progress("speed", 1, 5)
            if str(recipe) == refused:
                study.refused[refused] = "it has no rotary positions"
            else:
                study.measurements[str(recipe)] = measurement(recipe)
            watch.has(study, recipe, stored=False)


def test_a_terminal_sees_the_table_grow_and_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    for name, value in {"TERM": "xterm", "COLUMNS": "130", "LINES": "40"}.items():
        monkeypatch.setenv(name, value)
    watched(question("snapkv"))
    shown = terminal.getvalue()
    assert shown.count("dense") > shown.count("snapkv(budget=0.25)") > 0
    assert "speed" in shown
    assert "3/3" in shown


def test_a_low_terminal_keeps_the_dense_model_and_the_latest_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    for name, value in {"TERM": "xterm", "COLUMNS": "130", "LINES": "12"}.items():
        monkeypatch.setenv(name, value)
    watched(question("snapkv", "streaming_llm", budgets=(0.5, 0.25, 0.1)))
    last = terminal.getvalue().rpartition("cache held")[2]
    assert "dense" in last
    assert "streaming_llm(budget=0.1)" in last
    assert "snapkv(budget=0.5)" not in last


def test_a_file_gets_one_line_for_each_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    asked = question("snapkv")
    watched(asked, refused=str(asked.recipes[1]))
    assert capsys.readouterr().err.splitlines() == [
        "1/3 dense: measured",
        "note: snapkv(budget=0.5) is left out: it has no rotary positions",
        "3/3 snapkv(budget=0.25): measured",
    ]


def test_answers_of_workers_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalWatch(3) as watch:
        for done in (0, 1, 2, 2, 39, 40):
            watch.answered(done, 40)
    assert capsys.readouterr().err.splitlines() == ["39/40 answers", "40/40 answers"]
