"""The peak of memory: the allocator's, or that of a fresh process."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pith.core import Recipe
from pith.measure import Memory, costs, peak, weight_bytes
from pith.measure.memory import fresh_peak, memory
from pith.measure.seconds import Run
from pith.models import Loaded, load

builtin = cache(lambda: load("builtin"))
RECIPE = Recipe.parse("snapkv(budget=0.25)")


def run(peak: int | None = None) -> Run:
    return Run(1.0, 1.0, 1, 1, peak)


def test_on_the_processor_nobody_looks_unless_asked() -> None:
    assert memory(builtin(), builtin().model, RECIPE, ([run()], [run()]), None) == Memory(weight_bytes(builtin().model))


def test_the_allocators_peak_is_the_largest_of_the_runs() -> None:
    layer = torch.nn.Linear(3, 3, bias=False)
    layer.device = "cuda:0"
    found = memory(Loaded("x", layer, None), layer, RECIPE, ([run(50), run(70)], [run(90)]), (8, 0))
    assert found == Memory(36, 70, 90)


def test_fresh_processes_tell_the_peak() -> None:
    found = costs(builtin(), Recipe(), length=64, runs=1, peak=True).memory
    assert found.peak is not None
    assert found.peak == found.dense_peak, "of one process asked for twice there is one"
    assert found.peak > 50 * 2**20 > found.weights, "with Python and PyTorch"
    # logits and activations aside, the cache of 4000 tokens takes 15.6 MiB, and that of 64 a quarter of one
    assert fresh_peak("builtin", "dense", (4000, 0), "float32") > found.peak + 10 * 2**20


def test_a_model_that_cannot_be_loaded_again_is_a_note(tmp_path: Path) -> None:
    gone = replace(builtin(), name=str(tmp_path / "gone"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = costs(gone, Recipe(), length=64, runs=1, peak=True)
    assert (found.memory.peak, found.memory.dense_peak) == (None, None)
    assert found.notes[0].startswith("the peak of memory is not known: there is no folder")


def program(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["peak", *words])
    peak.main()


def test_the_program_prints_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    program(monkeypatch, "builtin", "--length", "32", "--recipe", str(RECIPE))
    found = json.loads(capsys.readouterr().out)
    assert found["peak"] > 50 * 2**20
    assert found["fresh"] in (True, False)


def test_a_mistake_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        program(monkeypatch, "builtin", "--recipe", "snapvk")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "no method is called 'snapvk'; did you mean 'snapkv'?\n"


def test_the_peak_where_the_system_has_no_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = SimpleNamespace(getrusage=lambda who: SimpleNamespace(ru_maxrss=7), RUSAGE_SELF=0)
    monkeypatch.setattr(peak, "resource", usage)
    monkeypatch.setattr(peak, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(peak, "_RESET", tmp_path / "nowhere" / "clear_refs")
    assert peak.resident_peak() == 7 * 1024
    assert peak._reset() is False
