"""Predictions: of bytes they are right, of times they follow from what was timed, and they say what they are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
import torch
import transformers as hf

from pith.core import InputError, Recipe
from pith.measure.sample import Sample
from pith.measure.seconds import Run, run_once, timed_prompt
from pith.models import Loaded, Subject, builtin
from pith.predict.advice import ERRORS, Advice, Check, Forecast, median_error
from pith.predict.advise import advise, verify
from pith.predict.probe import Prober, probe_all

SNAPKV, KIVI = Recipe.parse("snapkv(budget=0.25, window=8)"), Recipe.parse("kivi(group_size=8, residual_length=8)")


@pytest.fixture(autouse=True, scope="module")
def _known_machine() -> Iterator[None]:
    """Measuring the machine is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pith.predict.advise.copy_bandwidth", lambda device: 1e10)
        patch.setattr("pith.predict.advise.matrix_throughput", lambda dtype, device: 1e11)
        yield


@cache
def deep(layers: int = 8, positions: int = 1024) -> Loaded:
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=4096,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=positions,
    )
    return Loaded("deep", hf.LlamaForCausalLM(config).eval(), builtin()[1])


@cache
def advice() -> Advice:
    return advise(deep(), [Recipe(), SNAPKV, KIVI], [96, 192], seconds=6)


@pytest.fixture
def _steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that take a time that is known: dense n + n^2/1000 and 1 + n/100, a recipe twice that and half of it."""

    def run(self: Sample, subject: Subject, prompt: torch.Tensor, tokens: int) -> Run:
        rows, n = prompt.shape
        prefill, decode, held = (n + n * n / 1000) / 1e6, (1 + n / 100) / 1e6, 100 * n * rows
        if subject.recipe is None:
            return Run(prefill, decode, held, held)
        return Run(2 * prefill, decode / 2, held // 4, held)

    monkeypatch.setattr(Sample, "run", run)


def test_bytes_are_those_that_the_whole_model_holds() -> None:
    found = advice()
    for length in (96, 192):
        prompt = timed_prompt(deep().tokenizer, length, 0)
        for one in (found.dense, *found.predicted):
            recipe = Recipe.parse(one.recipe) if one.recipe != "dense" else None
            whole = run_once(Subject(deep().model, deep().tokenizer, recipe), prompt, 1).prefill_bytes
            [forecast] = [f for f in one.forecasts if f.length == length]
            assert forecast.bytes == pytest.approx(whole, rel=0.01)


def test_what_was_asked_is_answered() -> None:
    found = advice()
    assert (found.model, found.batch, found.lengths, found.layers, found.of) == ("deep", 1, (96, 192), 4, 8)
    assert found.dense.recipe == "dense"
    assert {one.recipe for one in found.predicted} == {str(SNAPKV), str(KIVI)}
    times = [one.forecasts[-1].decode for one in found.predicted]
    assert times == sorted(times)
    assert (found.refused, found.late) == ({}, ())
    assert (found.environment["seconds"], found.environment["dtype"]) == (6, "float32")
    assert (found.machine.copy, found.machine.matrix) == (1e10, 1e11)
    assert found.machine.overhead is not None
    assert found.machine.overhead >= 0
    assert all(f.prefill > 0 and f.decode > 0 for one in found.predicted for f in one.forecasts)


@pytest.mark.usefixtures("_steady")
def test_lengths_that_were_timed_and_those_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    # 30 ticks of a clock that moves at each look: enough for a few lengths only
    monkeypatch.setattr("pith.predict.probe.time.perf_counter", lambda: next(clock) / 10)
    prober = Prober(deep(2, 20000), 1, (1000, 2000, 16000))
    prober.warm_up(3.0)
    whole = prober.probe(SNAPKV, end=1e9)
    assert sorted(whole.pairs) == [1000, 2000, 16000]
    assert {len(some) for some in whole.pairs.values()} == {5}
    part = prober.probe(SNAPKV, end=0.0)
    assert {n: len(some) for n, some in part.pairs.items()} == {1000: 1}, "one pair in any case"


@pytest.mark.usefixtures("_steady")
def test_forecasts_follow_the_laws_of_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Prober.probe

    def short_only(self: Prober, recipe: Recipe, end: float) -> object:
        found = probe(self, recipe, end)
        for length in (4000, 16000):
            found.pairs.pop(length, None)
            self.dense.pop(length, None)
        return found

    monkeypatch.setattr(Prober, "probe", short_only)
    found = advise(deep(2, 20000), [SNAPKV], [500, 1000, 2000, 4000, 16000], seconds=30)
    [one] = found.predicted
    assert [f.timed for f in one.forecasts] == [True, True, True, False, False]
    for dense, forecast in zip(found.dense.forecasts, one.forecasts, strict=True):
        n = forecast.length
        assert dense.prefill == pytest.approx((n + n * n / 1000) / 1e6)
        assert dense.decode == pytest.approx((1 + n / 100) / 1e6)
        assert (forecast.prefill_ratio, forecast.decode_ratio) == (pytest.approx(2), pytest.approx(0.5))
        assert (dense.bytes, forecast.bytes) == (100 * n, 25 * n)
        assert (forecast.slower, forecast.faster, forecast.smaller) == (True, False, True)


@pytest.mark.usefixtures("_steady")
def test_rows_of_a_batch_count_together() -> None:
    found = advise(deep(2), [SNAPKV], [100], batch=3, seconds=30)
    assert found.dense.forecasts[0].bytes == 3 * 100 * 100
    with pytest.raises(InputError, match="batch=3 cannot be verified"):
        verify(deep(2), found)


def test_a_batch_really_is_one() -> None:
    found = advise(deep(), [SNAPKV], [96], batch=3, seconds=3)
    assert found.dense.forecasts[0].bytes == 3 * advice().dense.forecasts[0].bytes


def test_no_time_is_said_and_methods_that_cannot_take_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = "duo_attention(gates='nowhere.safetensors')"
    found = advise(deep(2), [Recipe.parse(gates), SNAPKV], [64], seconds=30)
    assert "nowhere.safetensors" in found.refused[gates]
    assert [one.recipe for one in found.predicted] == [str(SNAPKV)]
    found = advise(deep(2), [SNAPKV, KIVI], [64], seconds=1e-9)
    assert found.late == (str(SNAPKV), str(KIVI))
    assert found.predicted == ()
    assert found.dense.forecasts[0].decode > 0


def test_memory_that_runs_out_stops_the_climb(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Sample.run

    def scarce(self: Sample, subject: Subject, prompt: torch.Tensor, tokens: int) -> Run:
        if prompt.shape[1] > 150:
            raise torch.OutOfMemoryError
        return run(self, subject, prompt, tokens)

    monkeypatch.setattr(Sample, "run", scarce)
    prober = Prober(deep(2), 1, (64, 200))
    prober._rungs = [64, 200]
    found = prober.probe(SNAPKV, time.perf_counter() + 1e3)
    assert found.stopped == "there is not enough memory for 200 tokens"
    assert list(found.pairs) == [64]
    nothing = probe_all(Prober(deep(2), 1, (200,)), [SNAPKV], 60.0, None)
    assert nothing == ({}, {str(SNAPKV): "there is not enough memory for 200 tokens"}, ())


def test_it_keeps_to_its_time() -> None:
    begun = time.perf_counter()
    found = advise(deep(), [Recipe.parse(f"snapkv(budget={b}, window=8)") for b in (0.2, 0.4, 0.6)], [128], seconds=2)
    assert found.seconds == pytest.approx(time.perf_counter() - begun, abs=0.5)
    assert len(found.predicted) + len(found.late) == 3


def test_checks_stand_beside_measurements() -> None:
    checks = verify(deep(), advice(), runs=1)
    assert [(c.recipe, c.predicted.length) for c in checks][:2] == [("dense", 96), ("dense", 192)]
    assert len(checks) == 6
    assert all(abs(check.error(ERRORS["bytes"])) < 0.01 for check in checks)
    assert median_error(checks, ERRORS["bytes"]) < 0.01
    assert all(check.measured.decode > 0 for check in checks)


def test_errors_are_shares_of_what_was_measured() -> None:
    said = Forecast(10, 100, 3.0, 1.0)
    checks = tuple(Check("dense", said, replace(said, prefill=was)) for was in (2.0, 3.0, 6.0))
    assert [check.error(ERRORS["prefill"]) for check in checks] == [0.5, 0.0, -0.5]
    assert median_error(checks, ERRORS["prefill"]) == 0.5


@pytest.mark.parametrize(
    ("lengths", "settings", "why"),
    [
        ([64], {"batch": 0}, "batch=0 makes no sense; allowed is 1 or more"),
        ([0], {}, "length=0 makes no sense; allowed is 1 or more"),
        ([], {}, "length=0 makes no sense"),
        ([64], {"seconds": 0.0}, r"seconds=0\.0 makes no sense; allowed is more than 0"),
        ([64, 1000], {}, "a prompt of 1000 tokens and 32 decoded ones takes 1032 tokens"),
    ],
)
def test_numbers_that_make_no_sense(lengths: list[int], settings: dict[str, float], why: str) -> None:
    with pytest.raises(InputError, match=why):
        advise(deep(), [SNAPKV], lengths, **settings)


def test_recipes_that_change_weights_are_not_predicted() -> None:
    found = advise(deep(), [Recipe.parse("rtn(bits=4) + snapkv(budget=0.25)")], [32], seconds=1.0)
    assert found.predicted == ()
    [(recipe, why)] = found.refused.items()
    assert recipe == "rtn(bits=4) + snapkv(budget=0.25)"
    assert "changes weights" in why
    assert "pith compare measures it" in why
