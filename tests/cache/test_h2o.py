"""H2O against its equation, written naively: loops over rows, heads, forwards and positions."""

from __future__ import annotations

import math

import pytest
import torch

from contracts.tiny import tiny, tokens
from pith.attention import LayerCache
from pith.attention.answers import Answers
from pith.attention.call import Call
from pith.attention.evictor import Evictor
from pith.attention.in_flight import CacheGroup
from pith.cache.h2o import H2O
from pith.core import Recipe

MERGE = {"mean": lambda xs: sum(xs) / len(xs), "max": max, "sum": sum}


def naive(
    query: torch.Tensor, keys: torch.Tensor, method: H2O, parts: list[int], budget: int
) -> list[dict[int, float]]:
    """What one key-value head holds after each forward; `query` [group, token, dim], `keys` [token, dim]."""
    sums: dict[int, float] = {}
    after, seen = [], 0
    for count in parts:
        new = range(seen, seen + count)
        seen += count
        sums |= dict.fromkeys(new, 0.0)
        added = {j: [0.0] * len(query) for j in sums}
        for g in range(len(query)):
            for i in new:
                logits = {j: math.exp(float(query[g, i] @ keys[j]) / math.sqrt(8)) for j in sums if j <= i}
                for j, weight in logits.items():
                    added[j][g] += weight / sum(logits.values())
        for j in sums:
            sums[j] += MERGE[method.group](added[j])
        if len(sums) > budget:
            recent = int(budget * method.recent_share + 1e-6)
            candidates = sorted(j for j in sums if j < seen - recent)
            heavy = sorted(candidates, key=lambda j: sums[j])[len(candidates) - (budget - recent) :]
            sums = {j: sums[j] for j in sorted(heavy) + list(range(seen - recent, seen))}
        after.append(dict(sums))
    return after


@pytest.mark.parametrize(("query_heads", "kv_heads"), [(3, 3), (4, 2)])
@pytest.mark.parametrize("group", ["sum", "mean", "max"])
@pytest.mark.parametrize("recent_share", [0.5, 0.0, 0.8])
def test_every_row_holds_what_the_equation_says(query_heads: int, kv_heads: int, group, recent_share: float) -> None:
    torch.manual_seed(0)
    length, empty, parts = 21, 6, [15, 1, 1, 1, 1, 1, 1]
    query, keys = torch.randn(2, query_heads, length, 8), torch.randn(2, kv_heads, length, 8)
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, :empty] = 0
    method = H2O(budget=0.5, recent_share=recent_share, group=group)
    layer = LayerCache(0, 1, CacheGroup([0], 1), Answers(evictor=Evictor(method, seat=(0, 1), placement=None)))
    held, seen = [], 0
    for q, k in zip(query.split(parts, 2), keys.split(parts, 2), strict=True):
        seen += q.shape[2]
        layer.attend(Call(torch.nn.Identity(), mask[:, :seen], None, None, None, None, 0.0), q, k, k)
        held.append((layer.store.positions.expand(-1, kv_heads, -1).clone(), layer.store.carried.clone()))
    for row, first in ((0, 0), (1, empty)):
        own = [parts[0] - first, *parts[1:]]
        for head in range(kv_heads):
            asks = query[row].unflatten(0, (kv_heads, -1))[head, :, first:]
            expected = naive(asks, keys[row, head, first:], method, own, int(own[0] * 0.5))
            for (positions, sums), kept in zip(held, expected, strict=True):
                real = positions[row, head] >= 0
                assert positions[row, head][real].tolist() == list(kept)
                assert sums[row, head][real].tolist() == pytest.approx(list(kept.values()), abs=1e-4)


def test_sums_of_thousands_of_queries_lose_nothing_in_half_precision() -> None:
    model, prompt = tiny("llama_gqa", torch.bfloat16), tokens(1, 1500)
    cache = Recipe([H2O(budget=0.9999)]).cache(model)
    with torch.no_grad():
        model(prompt, past_key_values=cache)
    model.set_attn_implementation("sdpa")
    sums = cache.layers[0].store.carried
    assert sums.dtype == torch.float32
    # two query heads a group, one unit of attention a query; one pair and its sum were dropped
    assert (2 * 1500 - sums.sum(dim=-1)).abs().max() < 30


def test_a_pair_that_many_looked_at_outlives_those_that_few_did() -> None:
    torch.manual_seed(0)
    query, keys = torch.randn(1, 1, 40, 8) * 0.1 + 1, torch.randn(1, 1, 40, 8) * 0.1
    keys[0, 0, 7] = 4.0
    layer = LayerCache(0, 1, CacheGroup([0], 1), Answers(evictor=Evictor(H2O(budget=6), seat=(0, 1), placement=None)))
    call = Call(torch.nn.Identity(), None, None, None, None, None, 0.0)
    for q, k in zip(query.split([20, *[1] * 20], 2), keys.split([20, *[1] * 20], 2), strict=True):
        layer.attend(call, q, k, k)
        assert layer.store.length == 6
    assert 7 in layer.store.positions[0, 0].tolist()
    assert layer.store.positions[0, 0, -3:].tolist() == [37, 38, 39]
