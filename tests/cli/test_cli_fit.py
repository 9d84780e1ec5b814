from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

import pith.cli.fit as command
from cli.commands import pith_, refused
from pith.cli.fit_watch import TerminalFitWatch
from pith.core import Recipe
from pith.measure import weight_bytes
from pith.models import load
from pith.search.sought import Tried
from search.fits import CACHE, unmeasured

TASKS = "needle(length=96, keys=2, count=40),perplexity(length=96, scored=8, count=16)"


@pytest.fixture(scope="module")
def limit() -> str:
    """The weights and 40 % of what the dense cache takes in searches in which nothing is measured."""
    return f"{weight_bytes(load('builtin').model) + int(0.4 * CACHE)}B"


def fitted(out: Path, limit: str, *more: str, trials: int = 9) -> tuple[int, str, str]:
    with unmeasured():
        found = pith_("fit", "builtin", "--memory", limit, "--tasks", TASKS, "--length", "128", "--trials", str(trials),
                      "--out", str(out), *more)  # fmt: skip
    return found.exit_code, found.stdout, found.stderr


def test_it_prints_the_table_the_verdict_and_the_command_and_writes_the_page(limit: str, tmp_path: Path) -> None:
    code, out, err = fitted(tmp_path, limit)
    assert code == 0, err
    lines = out.splitlines()
    [verdict] = [line for line in lines if "meets every limit, measured afresh" in line]
    recipe = verdict.partition(" meets every")[0]
    assert Recipe.parse(recipe)
    assert (
        f"To use it: {shlex.join(['pith', 'generate', 'builtin', 'The import statement', '--recipe', recipe])}" in lines
    )
    assert any(
        re.match(r"Its weights and the cache take 13\.\d MiB, the dense model's 14\.\d MiB; it keeps", line)
        for line in lines
    )
    assert any(re.match(r"\d/9 .*: given up: it takes", line) for line in err.splitlines())
    page = (tmp_path / "report.html").read_text()
    assert recipe.replace("'", "&#39;").partition("(")[0] in page
    assert "meets every limit" in page
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["settings"]["seed"], run["model"]) == (1, "builtin")
    again, same, quiet = fitted(tmp_path, limit)
    assert (again, same.splitlines()[-4:]) == (0, lines[-4:])
    assert "given up" not in quiet  # nothing was tried again


def test_nothing_that_meets_the_limits_is_exit_code_1_and_the_nearest(limit: str, tmp_path: Path) -> None:
    tight = f"{weight_bytes(load('builtin').model) + 2000}B"
    code, out, _ = fitted(tmp_path, tight, "--json", trials=1)
    assert code == command.NOTHING_FITS == 1
    found = json.loads(out)
    assert found["sought"]["found"] is None
    assert found["sought"]["misses"].startswith("it takes")
    assert found["sought"]["nearest"] in {t["recipe"] for t in found["sought"]["tried"]}
    assert found["study"]["rows"][0]["recipe"] == "dense"
    assert Path(found["report"]).is_file()


def test_limits_that_make_no_sense_are_one_line(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)]
    assert "the embeddings alone take 4.00 MiB" in refused("fit", "builtin", "--memory", "2MiB", *out)
    assert "'64' is no size" in refused("fit", "builtin", "--memory", "64", *out)
    assert "nothing is limited" in refused("fit", "builtin", *out)
    assert "quality=2.0 makes no sense" in refused("fit", "builtin", "--memory", "15MiB", "--quality", "2", *out)
    assert "no task is called" in refused("fit", "builtin", "--memory", "15MiB", "--tasks", "nothing_like_it", *out)


def test_a_task_that_tells_nothing_of_the_model_is_one_line(model: str, tmp_path: Path) -> None:
    words = ["fit", model, "--memory", "1GiB", "--latency", "0.5", "--tasks", "needle(length=128, count=2)"]
    assert "tells nothing here" in refused(*words, "--length", "64", "--out", str(tmp_path))


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pith.search.fit.Search", stopped)
    found = pith_("fit", "builtin", "--memory", "15MiB", "--out", str(tmp_path))
    assert found.exit_code == 130
    assert found.stderr.splitlines()[-1].endswith("the same command goes on from there")


def test_the_help_names_an_example() -> None:
    found = pith_("fit", "--help")
    assert found.exit_code == 0
    assert "pith fit builtin --memory 15MiB" in found.stdout


def test_a_terminal_sees_the_front_and_the_latest_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    for name, value in {"TERM": "xterm", "COLUMNS": "130", "LINES": "40"}.items():
        monkeypatch.setenv(name, value)
    tried = [
        Tried("kivi(bits=4)", 14 << 20, 0.99, 1.4, 16),
        Tried("snapkv(budget=0.9)", 16 << 20, None, None, 0, given_up="it takes 16.0 MiB"),
    ]
    with TerminalFitWatch() as watch:
        watch.tries(Recipe.parse("snapkv(budget=0.9)"))
        watch.progress("needle", 3, 10)
        watch.has_tried(tried, 9)
    shown = terminal.getvalue()
    assert "on the front" in shown
    assert "it takes 16.0 MiB" in shown
    assert "1/9" in shown
    assert "3/10" in shown
