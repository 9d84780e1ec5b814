"""A log gets a line now and then; times are estimates, in words."""

from __future__ import annotations

import threading
import time

import pytest

from pith.cli import pulse
from pith.cli.pulse import Pulse, about, left


def test_silence_ends_with_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pulse, "FIRST", 0.01)
    monkeypatch.setattr(pulse, "EVERY", 3600.0)
    asked = threading.Event()

    def line() -> str:
        asked.set()
        return "needle: 1 of 4 examples"

    with Pulse(line):
        assert asked.wait(30)
    assert capsys.readouterr().err == "needle: 1 of 4 examples\n"


def test_what_was_said_makes_the_next_line_wait(capsys: pytest.CaptureFixture[str]) -> None:
    with Pulse(lambda: "too early") as beat:
        beat.said()
        time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_a_terminal_is_redrawn_instead(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pulse, "REDRAWN", 0.01)
    monkeypatch.setattr(pulse, "FIRST", 0.0)
    drawn = threading.Event()
    with Pulse(lambda: "a line", drawn.set):
        assert drawn.wait(30)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2, "about 5 seconds"),
        (38, "about 40 seconds"),
        (61, "about a minute"),
        (100, "about 2 minutes"),
        (359, "about 6 minutes"),
        (9000, "about 2.5 hours"),
    ],
)
def test_estimates_are_round(seconds: float, words: str) -> None:
    assert about(seconds) == words
    assert left(seconds).startswith(f"{words} left")
    assert (", until about " in left(seconds)) == (seconds > 90)
