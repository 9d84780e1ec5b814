from __future__ import annotations

import warnings

import pytest
import torch

import pith
from contracts.compressors import llama
from pith.core import PithWarning
from pith.weights import pace, stand_ins
from pith.weights.packed import PackedLinear


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_FOUND", {})


def lines(recipe: str, dtype: torch.dtype = torch.float32) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pith.compress(llama(False, dtype), recipe)
    return [str(one.message) for one in caught if issubclass(one.category, PithWarning)]


def test_a_slower_format_is_named_for_each_width(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[PackedLinear] = []
    monkeypatch.setattr(pace, "times_as_long", lambda layer: timed.append(layer) or 2.5)
    found = lines('rtn(bits={"*.down_proj": 4, "*": 3}, group_size=32)')
    assert len(found) == len(timed) == 2
    assert all("2.5 times as long" in line and "decodes them" in line for line in found)
    assert sorted(line[:24] for line in found) == ["rtn: weights of 3 bits s", "rtn: weights of 4 bits s"]
    assert {layer.bits: (layer.in_features, layer.out_features) for layer in timed} == {4: (96, 64), 3: (64, 96)}
    lines("rtn(bits=4, group_size=32)")
    assert len(timed) == 3, "the largest layer of 4 bits is another one now"
    assert lines("rtn(bits=4, group_size=32)")
    assert len(timed) == 3, "each is timed once"


def test_what_is_as_fast_is_not_worth_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "times_as_long", lambda layer: 1.05)
    assert not lines("rtn(bits=4, group_size=32)")


def test_another_dtype_is_another_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "times_as_long", lambda layer: 3.0)
    assert "dtype=bfloat16" in lines("rtn(bits=8)")[0]
    assert "dtype=bfloat16" not in lines("rtn(bits=8)", torch.bfloat16)[0]


def test_times_are_taken() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        model = pith.compress(llama(), "rtn(bits=3, group_size=32)")
    layer = next(one for one in stand_ins(model).values() if isinstance(one, PackedLinear))
    assert pace.times_as_long(layer) > 0
