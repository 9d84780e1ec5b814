from __future__ import annotations

import dataclasses
import time

import pytest

from pith.core import Recipe
from pith.measure import Speed
from pith.measure import crowding as module
from pith.measure.cost import costs
from pith.measure.crowding import Crowding, runnable
from pith.models import load


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of four processors on which nothing else runs."""
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(module, "usable_cores", lambda: 4)
    monkeypatch.setattr(module, "runnable", lambda: 1)
    monkeypatch.setattr(module, "EVERY", 0.001)
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)


def crowded() -> Crowding:
    found = Crowding()
    with found.watched():
        while len(found.running) < 5:
            time.sleep(0.001)
    return found


def test_a_quiet_machine_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crowded().reason == ""
    monkeypatch.setattr(module, "runnable", lambda: 4)
    assert crowded().reason == ""
    assert Crowding().reason == ""


def test_more_threads_than_processors_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert crowded().reason.startswith("PyTorch used 8 threads on 4 processors: times are not to be trusted")


def test_other_work_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "runnable", lambda: 9)
    assert crowded().reason.startswith("9 threads wanted the machine's 4 processors: times are not to be trusted")
    found = Crowding()
    found.running = [1, 1, 1, 9, 9]
    assert found.reason == "", "for less than half of the time"


def test_what_runs_is_counted_where_the_system_says_it(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "loadavg"
    monkeypatch.setattr(module, "_RUNNING", file)
    assert runnable() is None
    file.write_text("8.36 8.36 6.10 11/140 13341\n")
    assert runnable() == 10
    file.write_text("nothing\n")
    assert runnable() is None


def test_crowded_times_tell_nothing() -> None:
    speed = Speed(1.0, 2.0, 0.5, 1.0, 2.0, 0.5, 0.01, 5, 0.01)
    assert speed.decode_tells
    assert speed.prefill_tells
    noisy = dataclasses.replace(speed, crowded=True)
    assert not noisy.decode_tells
    assert not noisy.prefill_tells


def test_costs_taken_on_a_crowded_machine_carry_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load("builtin")
    assert not costs(loaded, Recipe(), length=16, runs=1).speed.crowded
    monkeypatch.setattr(module, "runnable", lambda: 9)
    found = costs(loaded, Recipe(), length=16, runs=1)
    assert found.speed.crowded
    assert [note for note in found.notes if "times are not to be trusted" in note]
