"""Examples are as long as they may be, and facts stand where they are to stand."""

from __future__ import annotations

from random import Random

import pytest

from pith.core import InputError
from pith.tasks.filler import NOISE, insert, largest, noise
from pith.tasks.generate import Example
from pith.tasks.room import Room


def count(text: str) -> int:
    return len(text.split())


def words(n: int) -> Example:
    return Example(" word" * n, " which?", " word")


@pytest.mark.parametrize("near", [None, 1, 3, 8, 1000])
@pytest.mark.parametrize("least", [0, 2])
@pytest.mark.parametrize("edge", [2, 3, 4, 16, 17, 99, 100])
def test_the_largest_that_fits_is_found(edge: int, least: int, near: int | None) -> None:
    asked: list[int] = []

    def fits(size: int) -> bool:
        asked.append(size)
        return size <= edge

    assert largest(fits, 100, least, near) == edge
    assert all(least < size <= 100 for size in asked)


@pytest.mark.parametrize("length", [12, 13, 57, 100])
def test_an_example_fills_its_room(length: int) -> None:
    assert count(Room("task", length, count).filled(words, 1, 1000).context) == length - 2
    assert count(Room("task", length, count, wordy=3).filled(words, 1, 1000).context) == length - 4


def test_too_little_and_too_much_room_is_refused() -> None:
    with pytest.raises(InputError, match="task: length=4 is too short; such an example takes 7"):
        Room("task", 4, count).filled(words, 5, 10)
    with pytest.raises(InputError, match="task: length=50 is not filled; allowed is at most 12"):
        Room("task", 50, count).filled(words, 5, 10)
    assert Room("task", 12, count).filled(words, 5, 10) == words(10)
    with pytest.raises(InputError, match="too short; such an example takes 12"):
        Room("task", 11, count).fixed(words(10))


@pytest.mark.parametrize("plain", [True, False])
def test_facts_are_hidden_in_filler(plain: bool) -> None:
    room, asked = Room("task", 900, count), Example("", " which?", " word")
    example = room.hidden(Random(1), asked, [" First one.", " Last one."], [0.1, 0.9], plain)
    assert count(example.context + example.question + example.answer) == 900
    places = [example.context.index(fact) / len(example.context) for fact in (" First one.", " Last one.")]
    assert places == [pytest.approx(0.1, abs=0.06), pytest.approx(0.9, abs=0.06)]
    assert (NOISE in example.context) is plain


def test_facts_at_one_place_stand_in_order_if_asked() -> None:
    text = "One sentence. Another one."
    assert insert(text, [" B.", " A."], [0.5, 0.5]) == "One sentence. A. B. Another one."
    assert insert(text, [" B.", " A."], [0.5, 0.5], in_order=True) == "One sentence. B. A. Another one."
    assert insert("", [" B.", " A."], [0.0, 1.0], in_order=True) == " B. A."


def test_noise_goes_on_and_on() -> None:
    assert noise(3 * len(NOISE)) == NOISE * 3
    assert noise(10) == NOISE[:10]
    assert noise(0) == ""
