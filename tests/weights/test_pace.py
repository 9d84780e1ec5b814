"""What is slower than dense is said where it is sure and can be noticed, with what makes it faster."""

from __future__ import annotations

import warnings

import pytest
import torch

import pith
from contracts.compressors import llama
from pith.core import PithWarning
from pith.weights import int4, pace
from pith.weights.pace import Pace, remedy
from pith.weights.packed import GroupedLinear, Int8Linear, PackedLinear

SLOW = Pace(2.5, 2.0, 3.0, 1.0)


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_FOUND", {})
    monkeypatch.setattr(pace, "timed", lambda call, device: 1.0)


def lines(recipe: str, dtype: torch.dtype = torch.float32) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pith.compress(llama(False, dtype), recipe)
    return [str(one.message) for one in caught if issubclass(one.category, PithWarning)]


def test_a_slower_format_is_named_for_each_width(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[PackedLinear] = []
    monkeypatch.setattr(pace, "pace", lambda layer: timed.append(layer) or SLOW)
    found = lines('rtn(bits={"*.down_proj": 4, "*": 3}, group_size=32)')
    assert len(found) == len(timed) == 2
    assert all("2.5 times (2.0 to 3.0) as long" in line and "decodes them" in line for line in found)
    assert sorted(line[:24] for line in found) == ["rtn: weights of 3 bits s", "rtn: weights of 4 bits s"]
    assert all(len(line) < 300 for line in found)
    assert {layer.bits: (layer.in_features, layer.out_features) for layer in timed} == {4: (96, 64), 3: (64, 96)}
    lines("rtn(bits=4, group_size=32)")
    assert len(timed) == 3, "the largest layer of 4 bits is another one now"
    assert lines("rtn(bits=4, group_size=32)")
    assert len(timed) == 3, "each is timed once"


@pytest.mark.parametrize(
    "found",
    [Pace(1.05, 1.02, 1.08, 1.0), Pace(3.0, 0.9, 9.0, 1.0), Pace(3.0, 2.9, 3.1, 1e-5)],
    ids=["as fast", "noise", "unnoticed"],
)
def test_what_is_not_sure_or_not_noticed_is_not_worth_a_word(found: Pace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "pace", lambda layer: found)
    assert not lines("rtn(bits=4, group_size=32)")


def test_layers_that_take_no_time_are_not_timed_against_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "timed", lambda call, device: 1e-6)
    monkeypatch.setattr(pace, "pace", lambda layer: pytest.fail("timed"))
    assert not lines("rtn(bits=4, group_size=32)")


def grouped(bits: int, out: int, inputs: int, group_size: int, dtype: torch.dtype = torch.bfloat16) -> GroupedLinear:
    return GroupedLinear(inputs, out, False, dtype, bits=bits, group_size=group_size)


NONE = "; each forward decodes them, since there is no kernel for them"


def test_what_makes_them_faster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int4, "block_rows", lambda: 64)  # that of a processor with AVX-512
    with_one = f"{NONE}: for few tokens there is one with"
    assert remedy(grouped(4, 128, 576, 96)) == f"{with_one} group_size=64"
    assert remedy(grouped(4, 128, 576, 128, torch.float32)) == f"{with_one} group_size=64 and dtype='bfloat16'"
    assert remedy(grouped(4, 128, 576, 64, torch.float32)) == f"{with_one} dtype='bfloat16'"
    assert remedy(grouped(4, 100, 576, 64)) == f"{NONE} here", "rows that no block divides"
    assert remedy(grouped(4, 128, 97, 32)) == f"{NONE} here", "inputs that no group divides"
    assert remedy(Int8Linear(64, 32, False, torch.float32)) == f"{with_one} dtype='bfloat16'"
    assert remedy(Int8Linear(97, 32, False, torch.float32)) == f"{NONE} here"
    assert remedy(grouped(4, 128, 64, 32)) == "", "the kernel is there"
    assert remedy(grouped(3, 256, 64, 32)) == "; bits=4 is faster, which the kernel reads as it is"


def test_times_are_taken_in_pairs() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        model = pith.compress(llama(), "rtn(bits=3, group_size=32)")
    found = pace.pace(next(one for one in model.modules() if isinstance(one, PackedLinear)))
    assert 0 < found.low <= found.ratio <= found.high
