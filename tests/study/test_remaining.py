"""How long the rest takes, on a clock that the test sets."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pith.measure.cost import SPEED
from pith.study.remaining import Piece, Remaining, pieces
from pith.tasks import parse_tasks
from study.fakes import question

PIECES = [Piece(recipe, what, tokens) for recipe in "abc" for what, tokens in ((SPEED, 400.0), ("needle", 1000.0))]


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def stepped(remaining: Remaining, clock: Clock, recipe: str, what: str, seconds: float, done: int, total: int) -> None:
    clock.now += seconds
    remaining.step((recipe,), what, done, total)


def test_nothing_is_told_before_something_was_seen() -> None:
    clock = Clock()
    remaining = Remaining(PIECES, clock)
    remaining.begins()
    assert remaining.seconds() is None
    stepped(remaining, clock, "a", SPEED, 0.5, 1, 4)
    assert remaining.seconds() is None


def test_the_steps_that_are_left_take_as_long_as_those_that_are_done() -> None:
    clock = Clock()
    remaining = Remaining(PIECES, clock)
    remaining.begins()
    stepped(remaining, clock, "a", SPEED, 4.0, 2, 4)  # all of it: 8 s, a token 0.02 s, needle 20 s
    assert remaining.seconds() == pytest.approx(4 + 20 + 2 * (8 + 20))
    assert remaining.seconds([SPEED]) == pytest.approx(4 + 2 * 8)
    stepped(remaining, clock, "a", SPEED, 4.0, 4, 4)
    stepped(remaining, clock, "a", "needle", 10.0, 1, 3)
    assert remaining.seconds() == pytest.approx(20 + 2 * (8 + 30))


def test_a_slower_recipe_is_slower_on_what_is_left_and_the_next_ones_are_as_slow_on_average() -> None:
    clock = Clock()
    remaining = Remaining(PIECES, clock)
    remaining.begins()
    stepped(remaining, clock, "a", SPEED, 8.0, 1, 1)
    stepped(remaining, clock, "a", "needle", 30.0, 1, 1)
    remaining.ends("a")
    stepped(remaining, clock, "b", SPEED, 16.0, 1, 1)
    assert remaining.seconds() == pytest.approx(2 * 30 + 2 * (8 + 30))
    remaining.ends("b")  # left out
    assert remaining.seconds() == pytest.approx(2 * (8 + 30))


def test_time_that_goes_by_is_taken_off_and_never_more_than_the_piece_in_hand() -> None:
    clock = Clock()
    remaining = Remaining(PIECES, clock)
    remaining.begins()
    stepped(remaining, clock, "a", SPEED, 8.0, 4, 4)
    before = remaining.seconds()
    assert before is not None
    clock.now += 5
    assert remaining.seconds() == pytest.approx(before - 5)
    clock.now += 1000
    assert remaining.seconds() == pytest.approx(before - 20)


def test_what_changes_weights_is_not_taken_for_a_piece() -> None:
    clock = Clock()
    remaining = Remaining(PIECES, clock)
    remaining.begins()
    stepped(remaining, clock, "a", "gptq", 60.0, 1, 1)
    stepped(remaining, clock, "a", SPEED, 8.0, 4, 4)
    assert remaining.seconds([SPEED]) == pytest.approx(16)


def test_pieces_of_workers_are_dropped() -> None:
    clock = Clock()
    remaining = Remaining(PIECES, clock)
    remaining.drop(lambda piece: piece.what != SPEED)
    remaining.begins()
    stepped(remaining, clock, "a", SPEED, 8.0, 4, 4)
    assert remaining.seconds() == pytest.approx(16)


def test_the_pieces_of_a_question_are_its_costs_and_tasks() -> None:
    asked = question("snapkv", budgets=(0.5,))
    found = pieces(asked, [(recipe, task) for recipe in asked.recipes for task in (None, *asked.tasks)], 8)
    assert [(one.recipe, one.what) for one in found[:3]] == [
        ("dense", "bytes"), ("dense", str(asked.tasks[0])), ("dense", str(asked.tasks[1])),
    ]  # fmt: skip
    assert found[1].tokens > 50 * 2048


def test_tasks_of_all_examples_have_an_estimate_too() -> None:
    asked = question("snapkv", tasks=tuple(parse_tasks("sliding_perplexity(length=64),lm_eval:arc_easy")))
    found = pieces(asked, [(asked.recipes[0], task) for task in asked.tasks], 8)
    assert all(piece.tokens >= 50 * 64 for piece in found)
