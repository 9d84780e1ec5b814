"""Bytes are those that tensors keep alive, wherever a cache hides them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from contracts.tiny import tiny, tokens
from pith.core import Recipe
from pith.measure import cache_bytes

FLOAT = 4


def cache_of(**attributes: Any) -> SimpleNamespace:
    return SimpleNamespace(layers=[SimpleNamespace(**attributes)])


def test_a_dynamic_cache_holds_its_keys_and_values() -> None:
    with torch.no_grad():
        cache = tiny("llama_gqa")(tokens(3, 20), use_cache=True).past_key_values
    # 2 layers, keys and values, 3 rows, 2 heads, 20 tokens, 16 channels
    assert cache_bytes(cache) == 2 * 2 * 3 * 2 * 20 * 16 * FLOAT


def test_a_view_counts_with_all_that_it_keeps_alive() -> None:
    whole = torch.zeros(100)
    assert cache_bytes(cache_of(keys=whole[:10])) == 100 * FLOAT
    assert cache_bytes(cache_of(keys=whole[:10].clone())) == 10 * FLOAT


def test_a_storage_counts_once() -> None:
    whole = torch.zeros(100)
    cache = SimpleNamespace(layers=[SimpleNamespace(keys=whole[:10]), SimpleNamespace(keys=whole[50:], same=whole)])
    assert cache_bytes(cache) == 100 * FLOAT


def test_tensors_are_found_at_any_depth() -> None:
    inner = SimpleNamespace(parts=[(torch.zeros(3),), {"scale": torch.zeros(5)}, {7}])
    inner.me = inner
    assert cache_bytes(cache_of(store=inner, name="a", count=3)) == 8 * FLOAT


def test_the_models_weights_are_not_the_caches() -> None:
    assert cache_bytes(cache_of(module=nn.Linear(10, 10), kind=nn.Linear, keys=torch.zeros(2))) == 2 * FLOAT


def test_a_layer_that_says_what_it_holds_is_believed() -> None:
    assert cache_bytes(cache_of(tensors=lambda: iter([torch.zeros(4)]), other=torch.zeros(9))) == 4 * FLOAT


@pytest.mark.parametrize("name", ["qwen3_next", "gemma3"])
def test_states_and_windows_count_too(name: str) -> None:
    def after(length: int) -> int:
        with torch.no_grad():
            cache = tiny(name)(tokens(1, length), use_cache=True).past_key_values
            # a sliding window keeps the whole prompt alive until the next token comes
            tiny(name)(tokens(1, 1), past_key_values=cache)
        return cache_bytes(cache)

    # one of the two layers keeps every token, keys and values of 2 heads with 16 channels; the other stays as it is
    assert after(48) - after(24) == 24 * 2 * 2 * 16 * FLOAT
    assert after(24) > 25 * 2 * 2 * 16 * FLOAT


def test_an_eviction_frees_what_it_drops() -> None:
    model = tiny("llama_mha")
    with torch.no_grad():
        dense = cache_bytes(model(tokens(1, 64), use_cache=True).past_key_values)
        cache = Recipe.parse("snapkv(budget=0.25, window=4)").cache(model)
        model(tokens(1, 64), past_key_values=cache)
    model.set_attn_implementation("sdpa")
    assert cache_bytes(cache) / dense == pytest.approx(0.25, rel=0.05)
