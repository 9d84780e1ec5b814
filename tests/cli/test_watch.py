from __future__ import annotations

import io
from dataclasses import replace

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


def test_a_slow_comparison_tells_its_estimate_its_pieces_and_how_to_make_it_shorter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr("pith.cli.watch.time.monotonic", lambda: now[0])
    asked = replace(question("snapkv"), costs={"length": 2048, "seed": 0, "runs": 5})
    needle = str(asked.tasks[0])
    with TerminalWatch(3, 8, "builtin: on this machine", "--count 8") as watch:
        watch.expects(asked, [(recipe, task) for recipe in asked.recipes for task in (None, *asked.tasks)])
        watch._remaining.clock = lambda: now[0]
        watch.begins(asked.recipes[0])
        for done in (1, 2):
            now[0] += 30
            watch.progress("speed", done, 2)
        now[0] += 40
        watch.progress(needle, 8, 50)
        assert watch._line().startswith("1/3 dense, needle: 8 of 50 examples; about ")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "builtin: on this machine"
    assert lines[1].startswith("to measure: the dense model and 2 recipes")
    assert lines[2].startswith("estimate: about ")
    assert lines[3].startswith("note: about ")
    assert "to make it shorter: --quick (--count 8), --no-times saves about 2 minutes, --count 25 saves " in lines[3]
    assert lines[4].startswith("1/3 dense, speed: 2 of 2 timed runs, done in about a minute; about ")
    assert len(lines) == 5


def test_answers_of_workers_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalWatch(3) as watch:
        for done in (0, 1, 2, 2, 39, 40):
            watch.answered(done, 40)
    assert capsys.readouterr().err.splitlines() == ["39/40 answers", "40/40 answers"]
