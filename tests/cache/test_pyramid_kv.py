"""PyramidKV's layers against its equation, and on a model."""

from __future__ import annotations

import pytest
import torch

from contracts.test_eviction_laws import all_real, read_and_decode
from contracts.tiny import tiny, tokens
from pith.attention import Seat
from pith.cache.ada_kv import AdaKV
from pith.cache.key_norm import KeyNorm
from pith.cache.pyramid_kv import PyramidKV
from pith.cache.snapkv import SnapKV
from pith.core import Recipe


def limits(method: PyramidKV, *lengths: int, layers: int = 32) -> torch.Tensor:
    """[layers, rows]"""
    return torch.stack([method.limit(torch.tensor(lengths), Seat(i, layers, 1024)) for i in range(layers)])


@pytest.mark.parametrize("layers", [2, 5, 32])
@pytest.mark.parametrize("capacity", [64, 97, 512])
@pytest.mark.parametrize("beta", [1, 3, 20])
def test_layers_keep_what_the_equation_says(layers: int, capacity: int, beta: int) -> None:
    window, length = 8, 4000
    kept = limits(PyramidKV(of=SnapKV(budget=capacity, window=window), beta=beta), length, layers=layers)[:, 0]
    b = capacity - window
    low = b // beta
    high = 2 * b - low
    for layer in range(layers):
        exact = high - layer * (high - low) / (layers - 1) + window
        assert abs(int(kept[layer]) - exact) < 1
    assert int(kept.sum()) == layers * capacity
    assert (kept.diff() <= 0).all()
    assert (int(kept[0]), int(kept[-1])) == (high + window, low + window)


@pytest.mark.parametrize("budget", [1, 7, 8, 9, 40, 0.05, 0.3, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("window", [1, 8])
def test_the_total_is_the_budget(budget: float, window: int) -> None:
    of = SnapKV(budget=budget, window=window)
    for length in (9, 30, 47, 80, 1200):
        kept = limits(PyramidKV(of=of), length, layers=6)[:, 0].clamp(max=length)
        assert int(kept.sum()) == 6 * min(length, int(of.limit(torch.tensor([length]), Seat(0, 6, 1024))[0]))
        assert (kept >= 1).all()


def test_without_a_window_each_layer_keeps_a_pair() -> None:
    kept = limits(PyramidKV(of=KeyNorm(budget=10)), 300)[:, 0]
    assert (int(kept[0]), int(kept[-1]), int(kept.sum())) == (19, 1, 320)


def test_rows_have_limits_of_their_own() -> None:
    method = PyramidKV(of=SnapKV(budget=0.3, window=8))
    together = limits(method, 1200, 310, 50, 9)
    for row, length in enumerate((1200, 310, 50, 9)):
        assert torch.equal(together[:, row], limits(method, length)[:, 0])


@pytest.mark.parametrize("name", ["llama_mha", "llama_gqa", "phi3"])
def test_a_model_holds_the_pyramid_and_the_budget(name: str) -> None:
    model, prompt = tiny(name), tokens(1, 301)
    with torch.no_grad():
        _, cache = read_and_decode(
            model, Recipe.parse("pyramid_kv(snapkv(budget=0.2, window=8))"), prompt, all_real(prompt), prompt[:, :0]
        )
    assert [layer.store.length for layer in cache.layers] == [60 + 50, 10]  # b = 52, low = 2, high = 102
    assert sum(layer.store.length for layer in cache.layers) == 2 * 60


def test_heads_and_layers_can_both_be_given_their_parts() -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 301)
    for text in (
        "ada_kv(pyramid_kv(snapkv(budget=0.2, window=8)))",
        "pyramid_kv(ada_kv(snapkv(budget=0.2, window=8)))",
    ):
        with torch.no_grad():
            _, cache = read_and_decode(model, Recipe.parse(text), prompt, all_real(prompt), prompt[:, :0])
        held = [(layer.store.positions >= 0).sum(dim=-1)[0] for layer in cache.layers]
        assert [int(heads.sum()) for heads in held] == pytest.approx([2 * 110, 2 * 10], abs=1)
        assert any(len(heads.unique()) > 1 for heads in held)


def test_it_is_written_and_read() -> None:
    method = PyramidKV(of=AdaKV(of=SnapKV(budget=0.2)), beta=10)
    assert str(method) == "pyramid_kv(ada_kv(snapkv(budget=0.2)), beta=10)"
    assert Recipe.parse(str(method)).methods == (method,)
    assert PyramidKV(of=SnapKV(budget=1.0)).keeps_all
