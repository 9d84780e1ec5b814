"""Replies are scored as RULER scores them, and a guesser as often as chance has it."""

from __future__ import annotations

from itertools import permutations

import pytest

from pith.tasks.generate import Example
from pith.tasks.interval import t_interval, wilson_interval
from pith.tasks.scoring import Match, calibration, score, share_interval

ONE = Example("", "?", " sun", candidates=("sun", "moon", "star", "sunset"))
TWO = Example("", "?", " sun, moon", ("sun", "moon"), ("sun", "moon", "star", "sunset"))


@pytest.mark.parametrize(
    ("reply", "exact", "every", "one"),
    [
        (" sun, moon", 1.0, 1.0, 1.0),
        ("sun, moon\n", 1.0, 1.0, 1.0),
        ("The MOON and the Sun.", 0.0, 1.0, 1.0),
        ("moon", 0.0, 0.5, 1.0),
        ("sunset, moonlight, sun-moon", 0.0, 0.0, 0.0),
        ("", 0.0, 0.0, 0.0),
    ],
)
def test_a_reply_is_scored(reply: str, exact: float, every: float, one: float) -> None:
    assert [score(TWO, reply, match) for match in ("exact", "all", "any")] == [exact, every, one]


def test_an_answer_without_parts_is_looked_for_as_a_whole() -> None:
    assert score(ONE, "it is the sun.", "all") == 1.0
    assert score(ONE, "it is the sunset.", "all") == 0.0
    assert score(ONE, "it is the sun.", "exact") == 0.0
    assert score(Example("", "", " 1.5"), "105", "all") == 0.0, "an answer is text, and no pattern"


@pytest.mark.parametrize(
    ("example", "match", "chance"),
    [(ONE, "exact", 1 / 4), (ONE, "all", 1 / 4), (TWO, "any", 2 / 4)],
)
def test_one_guess_is_the_mean_over_all_candidates(example: Example, match: Match, chance: float) -> None:
    found = calibration([example, example], match)
    assert (found.oracle, found.chance) == (1.0, pytest.approx(chance))


def test_several_guesses_are_drawn_without_repeating_one() -> None:
    every = [sum(word in ("sun", "moon") for word in drawn) / 2 for drawn in permutations(TWO.candidates, 2)]
    assert sum(every) / len(every) == 0.5
    assert calibration([TWO] * 20, "all").chance == pytest.approx(0.5, abs=0.03)
    assert calibration([TWO] * 20, "all") == calibration([TWO] * 20, "all")


def test_what_nothing_narrows_down_cannot_be_guessed() -> None:
    assert calibration([Example("", "?", " 4821", candidates=("4821",))], "exact").chance == 0.0
    assert calibration([Example("", "?", " 1, 2", ("1", "2"), ("1", "2"))], "all").chance == 0.0
    assert calibration([Example("", "?", " 4821")], "exact").chance == 0.0


def test_the_interval_of_shares() -> None:
    assert share_interval([1.0, 0.0, 1.0, 1.0]) == wilson_interval(3, 4)
    assert share_interval([0.25, 0.5, 0.5, 0.75, 0.0]) == (
        pytest.approx(t_interval([0.25, 0.5, 0.5, 0.75, 0.0])[0]),
        pytest.approx(t_interval([0.25, 0.5, 0.5, 0.75, 0.0])[1]),
    )
    assert share_interval([0.0, 0.75]) == (0.0, 1.0)
    low, high = share_interval([0.25] * 20)
    assert low < 0.25 < high, "equal scores are not certain"
    assert share_interval([0.5]) == wilson_interval(0.5, 1)
