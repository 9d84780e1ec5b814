from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pith.core import ModelError, Recipe
from pith.measure import Measurement
from pith.study import Question, Store, Study, compare, tasks_with
from study import killed
from study.fakes import measurement, question


class Notebook:
    """Watches, and measures."""

    def __init__(self, refuse: str = "") -> None:
        self.refuse = refuse
        self.measured: list[str] = []
        self.known: list[tuple[str, bool]] = []

    def begins(self, recipe: Recipe) -> None:
        self.measured.append(str(recipe))

    def has(self, study: Study, recipe: Recipe, stored: bool) -> None:
        self.known.append((str(recipe), stored))

    def measure(self, recipe: Recipe) -> Measurement:
        if self.refuse and self.refuse in str(recipe):
            raise ModelError("it has no rotary positions")
        return measurement(recipe)


def ask(directory: Path, asked: Question, refuse: str = "") -> tuple[Study, Notebook]:
    watch = Notebook(refuse)
    with Store(directory) as store:
        return compare(asked, store, watch.measure, watch), watch


def test_the_same_question_repeats_nothing(tmp_path: Path) -> None:
    first, _ = ask(tmp_path, question("snapkv"))
    again, watch = ask(tmp_path, question("snapkv"))
    assert again == first
    assert watch.measured == []
    assert watch.known == [(str(recipe), True) for recipe in first.question.recipes]


def test_only_what_is_new_is_measured(tmp_path: Path) -> None:
    ask(tmp_path, question("snapkv"))
    study, watch = ask(tmp_path, question("snapkv", "streaming_llm", budgets=(0.25,)))
    assert watch.measured == ["streaming_llm(budget=0.25)"]
    assert list(study.measurements) == ["dense", "snapkv(budget=0.25)", "streaming_llm(budget=0.25)"]


def test_results_of_other_questions_stay_and_are_not_shown(tmp_path: Path) -> None:
    ask(tmp_path, question("snapkv"))
    other = replace(question("snapkv"), settings={"length": 512})
    study, watch = ask(tmp_path, other)
    assert len(watch.measured) == len(study.measurements) == 3
    with Store(tmp_path) as store:
        assert len(store) == 6


def test_a_recipe_that_the_model_cannot_take_is_left_out(tmp_path: Path) -> None:
    study, watch = ask(tmp_path, question("streaming_llm", "snapkv", budgets=()), refuse="streaming_llm")
    assert list(study.measurements) == ["dense", "snapkv()"]
    assert study.refused == {"streaming_llm()": "it has no rotary positions"}
    assert [known for known, _ in watch.known] == ["dense", "streaming_llm()", "snapkv()"]


@pytest.mark.parametrize("refused", ["dense", "snapkv"])
def test_it_ends_when_nothing_is_left_to_compare(tmp_path: Path, refused: str) -> None:
    with pytest.raises(ModelError, match="rotary"):
        ask(tmp_path, question("snapkv"), refuse=refused)


def test_the_key_depends_on_everything_that_is_asked(tmp_path: Path) -> None:
    asked, recipe = question("snapkv"), Recipe.parse("snapkv")
    text = tmp_path / "text.txt"
    text.write_text("one")
    on_file = replace(asked, tasks=tasks_with(f"perplexity(text={str(text)!r})", {}))
    keys = [
        asked.key(recipe),
        asked.key(Recipe()),
        replace(asked, tasks=asked.tasks[:1]).key(recipe),
        replace(asked, settings={"length": 512, "seed": 0}).key(recipe),
        on_file.key(recipe),
    ]
    text.write_text("another")
    assert len({*keys, on_file.key(recipe)}) == len(keys) + 1


def test_the_key_does_not_depend_on_names_and_order() -> None:
    asked, recipe = question("snapkv"), Recipe.parse("snapkv")
    same = replace(asked, model="./fake", tasks=asked.tasks[::-1], recipes=asked.recipes[:1])
    assert same.key(recipe) == asked.key(recipe)


def test_killed_at_any_moment_it_goes_on_and_repeats_nothing_stored(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, killed.__file__, str(tmp_path), str(log), "0.05"]
    environment = os.environ | {"PYTHONPATH": str(Path(killed.__file__).parents[1])}
    for kills, done in enumerate((2, 9), start=1):
        child = subprocess.Popen(command, env=environment)
        try:
            while child.poll() is None and (not log.exists() or len(log.read_text().split("\n")) <= done):
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL
        finally:
            child.kill()
        with Store(tmp_path) as store:
            assert len(store) >= done - kills  # each kill may take one that was measured and not yet stored
    killed.main(tmp_path, log, delay=0)
    counts = Counter(log.read_text().splitlines())
    assert len(counts) == 28
    # a measurement that a kill took between its end and its storing is made again: one for each kill at most
    assert sum(counts.values()) <= 28 + 2
