from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pith.core import ModelError, Recipe
from pith.measure import Answer, Costs
from pith.study import Question, Store, Study, compare
from pith.study.compare import TOGETHER
from pith.tasks import Task
from study import killed
from study.fakes import Fake, measurement, question


class Notebook(Fake):
    """Watches, and measures."""

    def __init__(self, refuse: str = "", at: str = "costs") -> None:
        self.refuse, self.at = refuse, at
        self.measured: list[str] = []
        self.together: list[str] = []
        self.taken: list[str] = []
        self.known: list[tuple[str, bool]] = []

    def expects(self, question: Question, left: object) -> None: ...

    def prepares(self, task: Task, done: int, total: int) -> None: ...

    def begins(self, recipe: Recipe) -> None:
        self.measured.append(str(recipe))

    def begins_together(self, recipes: Sequence[Recipe]) -> None:
        self.together.append(" ".join(map(str, recipes)))

    def has(self, study: Study, recipe: Recipe, stored: bool) -> None:
        self.known.append((str(recipe), stored))

    def costs(self, recipe: Recipe) -> Costs:
        self._take(recipe, "costs")
        return super().costs(recipe)

    def answer(self, recipe: Recipe, task: Task) -> Answer:
        self._take(recipe, task.name)
        return super().answer(recipe, task)

    def _take(self, recipe: Recipe, what: str) -> None:
        if self.refuse and self.refuse in str(recipe) and what == self.at:
            raise ModelError("it has no rotary positions")
        self.taken.append(f"{recipe} {what}")


def ask(directory: Path, asked: Question, refuse: str = "", at: str = "costs") -> tuple[Study, Notebook]:
    watch = Notebook(refuse, at)
    with Store(directory) as store:
        return compare(asked, store, watch, watch), watch


def test_the_same_question_repeats_nothing(tmp_path: Path) -> None:
    first, _ = ask(tmp_path, question("snapkv"))
    again, watch = ask(tmp_path, question("snapkv"))
    assert again == first
    assert watch.measured == watch.taken == []
    assert watch.known == [(str(recipe), True) for recipe in first.question.recipes]


def test_only_what_is_new_is_measured(tmp_path: Path) -> None:
    ask(tmp_path, question("snapkv"))
    study, watch = ask(tmp_path, question("snapkv", "streaming_llm", budgets=(0.25,)))
    assert watch.measured == ["streaming_llm(budget=0.25)"]
    assert list(study.measurements) == ["dense", "snapkv(budget=0.25)", "streaming_llm(budget=0.25)"]


def test_another_task_measures_no_times_again(tmp_path: Path) -> None:
    asked = question("snapkv", budgets=(0.5,))
    ask(tmp_path, replace(asked, tasks=asked.tasks[:1]))
    study, watch = ask(tmp_path, asked)
    assert watch.taken == ["dense perplexity", "snapkv() perplexity"]
    assert [list(m.answers) for m in study.measurements.values()] == [[str(task) for task in asked.tasks]] * 2


def test_results_of_other_questions_stay_and_are_not_shown(tmp_path: Path) -> None:
    ask(tmp_path, question("snapkv"))
    other = replace(question("snapkv"), settings={"model": "another"})
    study, watch = ask(tmp_path, other)
    assert watch.measured == ["dense"], "the others take turns"
    assert len(study.measurements) == 3
    with Store(tmp_path) as store:
        assert len(store) == 2 * 3 * 3


def test_another_timed_prompt_asks_no_task_again(tmp_path: Path) -> None:
    ask(tmp_path, question("snapkv"))
    _, watch = ask(tmp_path, replace(question("snapkv"), costs={"length": 512, "seed": 0}))
    assert watch.taken == [f"{recipe} costs" for recipe in question("snapkv").recipes]


@pytest.mark.parametrize("at", ["costs", "perplexity"])
def test_a_recipe_that_the_model_cannot_take_is_left_out(tmp_path: Path, at: str) -> None:
    study, watch = ask(tmp_path, question("streaming_llm", "snapkv", budgets=()), "streaming_llm", at)
    assert list(study.measurements) == ["dense", "snapkv()"]
    assert study.refused == {"streaming_llm()": "it has no rotary positions"}
    assert [known for known, _ in watch.known] == ["dense", "streaming_llm()", "snapkv()"]


@pytest.mark.parametrize("refused", ["dense", "snapkv"])
def test_it_ends_when_nothing_is_left_to_compare(tmp_path: Path, refused: str) -> None:
    with pytest.raises(ModelError, match="rotary"):
        ask(tmp_path, question("snapkv"), refuse=refused)


def test_what_was_left_out_before_stays_in_the_study(tmp_path: Path) -> None:
    watch = Notebook()
    with Store(tmp_path) as store:
        study = compare(question("snapkv"), store, watch, watch, refused={"streaming_llm()": "it cannot meet 1 KiB"})
    assert study.refused == {"streaming_llm()": "it cannot meet 1 KiB"}


def test_each_task_is_calibrated(tmp_path: Path) -> None:
    asked = question("snapkv")
    study, watch = ask(tmp_path, asked)
    assert study.calibrations == {str(task): watch.calibrate(task) for task in asked.tasks}


def test_killed_at_any_moment_it_goes_on_and_repeats_nothing_stored(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, killed.__file__, str(tmp_path), str(log), "0.02"]
    environment = os.environ | {"PYTHONPATH": killed.path()}
    for kills, done in enumerate((5, 27), start=1):
        child = subprocess.Popen(command, env=environment)
        try:
            while child.poll() is None and (not log.exists() or len(log.read_text().split("\n")) <= done):
                time.sleep(0.005)
            child.send_signal(signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL
        finally:
            child.kill()
        with Store(tmp_path) as store:
            # each kill may take those that were begun and not yet stored
            assert len(store) >= done - kills * TOGETHER
    killed.main(tmp_path, log, delay=0)
    counts = Counter(log.read_text().splitlines())
    assert len(counts) == 28 * 3
    # pieces that a kill took between their beginning and their storing are taken again
    assert sum(counts.values()) <= 28 * 3 + 2 * TOGETHER


def test_weights_are_changed_once_before_workers_begin(tmp_path: Path) -> None:
    """Of recipes whose answers are not stored yet; one that the model cannot take is asked of nobody."""

    class Preparing(Notebook):
        def prepare(self, recipe: Recipe) -> None:
            self.taken.append(f"{recipe} prepared")
            if "hqq" in str(recipe):
                raise ModelError("it cannot be taken")

    class Helping:
        def answer(self, question: Question, store: Store) -> dict[str, str]:
            watch.taken.append("workers")
            for recipe in question.recipes:
                for task in question.tasks:
                    store.put(question.key(recipe, task), watch.answer(recipe, task), {})
            return {}

    watch, asked = Preparing(), question("snapkv", "rtn(bits=4)", "hqq(bits=2)", budgets=(0.5,))
    with Store(tmp_path) as store:
        study = compare(asked, store, watch, watch, Helping())
        assert watch.taken[:3] == ["rtn(bits=4) prepared", "hqq(bits=2) prepared", "workers"]
        assert study.refused == {"hqq(bits=2)": "it cannot be taken"}
        assert set(study.measurements) == {"dense", "snapkv()", "rtn(bits=4)"}
        before = len(watch.taken)
        compare(asked, store, watch, watch, Helping())
    assert "rtn(bits=4) prepared" not in watch.taken[before:], "its answers are stored"


def test_recipes_that_change_weights_alike_take_turns_in_tasks(tmp_path: Path) -> None:
    recipes = ("snapkv", "tova", "rtn(bits=4)", "rtn(bits=4) + snapkv", "rtn(bits=4) + tova", "rtn(bits=8) + tova")
    asked = question(*recipes, budgets=(0.5,))
    study, watch = ask(tmp_path, asked)
    pairs = ["snapkv() tova()", "rtn(bits=4) + snapkv() rtn(bits=4) + tova()"]
    alike = ["dense snapkv() tova()", f"rtn(bits=4) {pairs[1]}"]
    tasks, timed = watch.together[:-2], watch.together[-2:]
    assert tasks == pairs * len(asked.tasks), "rtn alone acts in no cache, and 8 bits make another model"
    assert timed == alike, "one of 8 bits is timed alone"
    assert list(study.measurements) == [str(recipe) for recipe in asked.recipes]
    for recipe in asked.recipes:
        assert study.measurements[str(recipe)] == measurement(recipe)
    assert len(watch.taken) == len(set(watch.taken)) == len(asked.recipes) * (1 + len(asked.tasks))
    first = [f"dense {task.name}" for task in asked.tasks]
    assert watch.taken[: len(first)] == first, "the dense model answers first"


def test_recipes_take_turns_in_groups(tmp_path: Path) -> None:
    asked = question("snapkv", budgets=tuple(i / 20 for i in range(1, 11)))
    _, watch = ask(tmp_path, asked)
    assert [text.count("snapkv") for text in watch.together] == [TOGETHER, 2] * len(asked.tasks) + [TOGETHER - 1, 3]


def test_one_that_cannot_take_its_turn_is_left_out_alone(tmp_path: Path) -> None:
    study, watch = ask(tmp_path, question("snapkv", "tova", "h2o", budgets=(0.5,)), "tova", "needle")
    assert study.refused == {"tova()": "it has no rotary positions"}
    assert list(study.measurements) == ["dense", "snapkv()", "h2o()"]
    assert watch.together[1] == "snapkv() h2o()", "it is not asked again"
