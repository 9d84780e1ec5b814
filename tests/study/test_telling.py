"""Whether the dense model can do a task is said on its first examples, and what it could be asked instead is tried."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from pith.core import Recipe
from pith.models import load
from pith.study import Here, Telling
from pith.tasks import Calibration, Needle, Perplexity, Quality, Task
from pith.tasks.interval import wilson_interval
from pith.tasks.lookup import Lookup
from pith.tasks.passkey import Passkey

loaded = cache(lambda: load("builtin"))
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def hits(count: int, n: int) -> Quality:
    return Quality(count / n, *wilson_interval(count, n), n, (1.0,) * count + (0.0,) * (n - count))


def telling() -> tuple[Telling, list[str]]:
    said: list[str] = []
    return Telling(loaded(), said.append), said


def test_a_task_that_the_model_can_do_is_not_mentioned() -> None:
    teller, said = telling()
    teller.early(Needle(), Calibration(1.0, 0.25), hits(7, 8), 50)
    teller.final(Needle(), Calibration(1.0, 0.25), hits(40, 50))
    teller.early(Needle(), Calibration(1.0, None), hits(0, 8), 50)
    assert said == []


def test_a_doubt_is_said_at_once_and_taken_back() -> None:
    teller, said = telling()
    teller.early(Needle(), Calibration(1.0, 0.25), hits(3, 8), 50)
    assert said == [
        "note: needle() tells nothing so far: on the first 8 of 50 examples the dense model scores 0.375 "
        "(0.137 to 0.694), not above chance (0.250); try a shorter --length, or another task"
    ]
    teller.final(Needle(), Calibration(1.0, 0.25), hits(30, 50))
    assert said[1] == "note: needle(): on all 50 examples the dense model is better than chance"


def test_a_text_that_the_model_does_not_know_wants_another_one() -> None:
    teller, said = telling()
    quality = Quality(900.0, 700.0, 1100.0, 8, (6.8,) * 8)
    teller.early(Perplexity(), Calibration(1.0, 800.0), quality, 16)
    assert "not below chance (800); try another text (--text FILE), or another task" in said[0]


def tried(monkeypatch: pytest.MonkeyPatch, good: tuple[str, ...]) -> list[str]:
    """Makes short tasks answer at once, all right where the task's text begins with one of these."""
    asked: list[str] = []

    def run(self: Task, *_: Any) -> Quality:
        asked.append(str(self))
        return hits(6 if str(self).startswith(good) else 0, 6)

    for kind in (Lookup, Needle, Passkey):
        monkeypatch.setattr(kind, "run", run)
        monkeypatch.setattr(kind, "calibrate", lambda *_: Calibration(1.0, 0.25))
    return asked


def test_short_tasks_are_tried_in_its_place_until_one_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tried(monkeypatch, ("passkey",))
    teller, said = telling()
    teller.final(Lookup(), Calibration(1.0, 0.25), hits(10, 50))
    assert asked == ["lookup(length=256, count=6)", "passkey(length=256, count=6)"]
    assert said[0].startswith("note: lookup() tells nothing here: on 50 examples the dense model scores 0.200 ")
    assert said[0].endswith("; passkey(length=256, count=6) does, with 1.00 on 6 examples")
    assert len(said[0]) < 300


def test_where_none_tells_what_was_tried_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tried(monkeypatch, ("nothing",))
    teller, said = telling()
    teller.final(Needle(length=96), Calibration(1.0, 0.25), hits(0, 6))
    assert said[0].endswith("; neither does passkey(length=256, count=6)")


def test_the_chat_template_is_suggested_and_tried_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tried(monkeypatch, ("lookup(length=256, count=6, chat=True)",))
    fresh = load("builtin")
    fresh.tokenizer.chat_template = TEMPLATE
    said: list[str] = []
    teller = Telling(fresh, said.append)
    teller.early(Lookup(), Calibration(1.0, 0.25), hits(0, 8), 50)
    teller.final(Lookup(), Calibration(1.0, 0.25), hits(0, 50))
    assert "; try --chat, or a shorter --length, or another task" in said[0]
    assert said[1].endswith("lookup(length=256, count=6, chat=True) does, with 1.00 on 6 examples")
    assert asked == ["lookup(length=256, count=6)", "lookup(length=256, count=6, chat=True)"]


def here(said: list[str], chance: float) -> Here:
    class Guessed(Here):
        def calibrate(self, task: Task) -> Calibration:
            return Calibration(1.0, chance)

    return Guessed(loaded(), length=8, batch_size=4, seed=0, telling=Telling(loaded(), said.append, 4))


@pytest.mark.parametrize(
    "task", [Perplexity(length=16, scored=2, count=12), Passkey(length=64, count=12)], ids=["perplexity", "passkey"]
)
def test_the_first_examples_are_part_of_the_answer(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Telling, "_found", lambda *_: "")
    found = here(said, 1.0).answer(Recipe(), task)
    assert found.quality == Here(loaded(), length=8, batch_size=4, seed=0).answer(Recipe(), task).quality
    assert "on the first 8 of 12 examples the dense model scores" in said[0]
    assert f"tells nothing here: on {found.quality.n} examples" in said[1]
    first = found.quality.scores[:8]
    part = replace(found.quality, scores=first)
    shown = float(said[0].partition("scores ")[2].partition(" ")[0])
    mean = sum(part.scores) / 8
    assert shown == pytest.approx(2.718281828**mean if task.logarithmic else mean, rel=0.01)


def test_recipes_and_few_examples_have_no_early_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Telling, "_found", lambda *_: "")
    task = Passkey(length=64, count=6)
    here(said, 1.0).answer(Recipe.parse("streaming_llm(budget=8)"), task)
    assert said == []
    here(said, 1.0).answer(Recipe(), task)
    assert len(said) == 1
    assert "tells nothing here: on 6 examples" in said[0]
