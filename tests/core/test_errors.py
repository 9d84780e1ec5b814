"""Error messages: one line, under 300 characters, whatever value was given."""

from __future__ import annotations

import pickle

import pytest

from pith.core import InputError, PithError, RecipeSyntaxError, nearest, shorten, shown


def test_a_message_is_one_bounded_line() -> None:
    assert str(InputError("short")) == "short"
    long = str(InputError("begin " + "x" * 4000 + " end"))
    assert len(long) == 299
    assert long.startswith("begin x")
    assert long.endswith("x end")
    assert " ... " in long
    assert str(InputError("a\nb\x1b[31m\0\ud800\u202e")) == "a\\nb\\x1b[31m\\x00\\ud800\\u202e"
    assert str(InputError("caf\u00e9 \u6f22")) == "caf\u00e9 \u6f22"


def test_a_place_keeps_its_lines() -> None:
    error = RecipeSyntaxError("wrong " + "x" * 4000, "\n  text\n  ^")
    assert str(error).splitlines()[1:] == ["  text", "  ^"]
    assert len(str(error)) == 299


def test_an_error_survives_pickling() -> None:
    error = RecipeSyntaxError("wrong", "\n  text\n  ^")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.args) == (RecipeSyntaxError, str(error), error.args)
    assert str(PithError()) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, "1.5"),
        ("a'b", '"a\'b"'),
        (10**5000, "<int of 16610 bits>"),
        ((10**5000,), "<tuple that cannot be written>"),
        ("x" * 100, f"'{'x' * 49} ... {'x' * 24}'"),
    ],
    ids=["number", "quotes", "integer", "tuple", "long"],
)
def test_how_a_value_is_shown(value: object, expected: str) -> None:
    assert shown(value) == expected


def test_a_value_that_contains_itself_deeply_is_shown() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    assert shown(value) == "<list that cannot be written>"


@pytest.mark.parametrize("most", [5, 6, 20, 21, 22])
def test_what_is_shortened_has_the_length_asked_for(most: int) -> None:
    assert len(shorten("abcdefghijklmnopqrstuvwxyz", most)) == most
    assert shorten("abc", most) == "abc"


def test_the_nearest_word_of_a_long_one_is_found_fast() -> None:
    assert nearest("x" * 1_000_000, ["snapkv"]) == ""
    assert nearest("snapkw", ["snapkv"]) == "; did you mean 'snapkv'?"
