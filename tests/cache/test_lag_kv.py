"""LagKV against its equation, written naively, and its run-by-run forgetting in models."""

from __future__ import annotations

import math

import pytest
import torch

from contracts.steps import step
from contracts.test_eviction_laws import all_real, cache_bytes, read_and_decode
from contracts.tiny import FULL, MAKERS, tiny, tokens
from pith.attention import Seat
from pith.cache.lag_kv import LagKV
from pith.core import DenseCache, ParameterError, Recipe

SEAT = Seat(0, 1, 1)


def naive_stands_out(run: list[list[float]], following: list[list[float]]) -> list[float]:
    spreads = []
    for token in run:
        z = []
        for c, x in enumerate(token):
            low, high = min(t[c] for t in following), max(t[c] for t in following)
            z.append((x - low) / (high - low) if high > low else 0.0)
        mean = sum(z) / len(z)
        spreads.append(math.sqrt(sum((x - mean) ** 2 for x in z) / (len(z) - 1)))
    total = sum(math.exp(x) for x in spreads)
    return [math.exp(x) / total for x in spreads]


def naive_kept(keys: list[list[float]], values: list[list[float]], method: LagKV) -> list[int]:
    """What one head keeps of a prompt."""
    size, kept = method.lag_size, list(range(min(method.sink_size, len(keys))))
    runs = max((len(keys) - method.sink_size) // size, 1)
    for i in range(runs - 1):
        first = method.sink_size + i * size
        run, following = slice(first, first + size), slice(first + size, first + 2 * size)
        scores = [
            k + method.score_v_ratio * v
            for k, v in zip(
                naive_stands_out(keys[run], keys[following]),
                naive_stands_out(values[run], values[following]),
                strict=True,
            )
        ]
        best = sorted(range(size), key=lambda j: scores[j])[size - int(method.ratio * size) :]
        kept += sorted(first + j for j in best)
    return kept + list(range(method.sink_size + (runs - 1) * size, len(keys)))


@pytest.mark.parametrize("kv_heads", [1, 3])
@pytest.mark.parametrize("length", [5, 18, 19, 40])
@pytest.mark.parametrize("ratio", [0.5, 0.0, 0.9])
def test_each_row_keeps_what_the_equation_says(kv_heads: int, length: int, ratio: float) -> None:
    torch.manual_seed(0)
    method, empty = LagKV(ratio=ratio, sink_size=3, lag_size=8, score_v_ratio=0.5), 4
    positions = torch.stack([torch.arange(length), (torch.arange(length) - empty).clamp(min=-1)])[:, None].int()
    keys, values = torch.randn(2, kv_heads, length, 6), torch.randn(2, kv_heads, length, 6)
    keys[1, :, :empty] = 3.0  # padding is all alike
    s = step(keys, keys, values, positions)
    limits, scores = method.limit(torch.tensor([length, length - empty]), SEAT), method.score(s)
    for row, first in ((0, 0), (1, empty)):
        for head in range(kv_heads):
            kept = [j - first for j in range(first, length) if scores[row, head, j] == 0]
            assert kept == naive_kept(keys[row, head, first:].tolist(), values[row, head, first:].tolist(), method)
            assert len(kept) == limits[row]


def test_a_constant_channel_says_nothing() -> None:
    torch.manual_seed(0)
    keys = torch.randn(1, 1, 16, 6)
    keys[0, 0, 8:, 2] = 1.0
    keys[0, 0, :8, 2] = torch.linspace(0, 1, 8)
    method = LagKV(sink_size=0, lag_size=8, score_v_ratio=0.0)
    scores = method.score(step(keys, keys))
    assert [j for j in range(16) if scores[0, 0, j] == 0] == naive_kept(
        keys[0, 0].tolist(), keys[0, 0].tolist(), method
    )
    alike = LagKV(sink_size=0, lag_size=8).score(step(torch.ones(1, 1, 24, 6), torch.ones(1, 1, 24, 6)))
    assert (alike == 0).sum() == 16  # half of each of two runs, and the last


@pytest.mark.parametrize("name", FULL)
def test_decoding_forgets_run_by_run_and_never_again(name: str) -> None:
    model, method = tiny(name), LagKV(ratio=0.25, sink_size=2, lag_size=8)
    cache, before = Recipe([method]).cache(model), None
    with torch.no_grad():
        for seed, count in enumerate([20, *[1] * 45]):
            model(tokens(2, count, seed=seed), past_key_values=cache)
            seen = cache.get_seq_length()
            for layer in cache.layers:
                runs = max((seen - 2) // 8 - 1, 0)
                assert layer.store.length == seen - runs * 6
            kept = cache.layers[1].store.positions.expand(-1, cache.layers[1].store.keys.shape[1], -1)
            if before is not None and kept.shape[2] < before.shape[2]:
                older = (before < seen - 16 - 1).sum(dim=-1).min()  # what was gone through earlier
                assert torch.equal(kept[..., :older], before[..., :older])
            before = kept.clone()
    model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "mistral_sliding"])
@pytest.mark.filterwarnings("ignore::pith.core.PithWarning")
def test_a_padded_row_gives_what_it_gives_alone(name: str) -> None:
    model, recipe = tiny(name), Recipe([LagKV(ratio=0.4, sink_size=3, lag_size=5)])
    rows, decoded = [tokens(1, n, seed=n) for n in (45, 29, 9, 34)], tokens(4, 17, seed=1)
    prompt = torch.cat([torch.nn.functional.pad(r, (45 - r.shape[1], 0)) for r in rows])
    mask = torch.cat([torch.nn.functional.pad(all_real(r), (45 - r.shape[1], 0)) for r in rows])
    with torch.no_grad():
        together, cache = read_and_decode(model, recipe, prompt, mask, decoded)
        for i, row in enumerate(rows):
            alone, alone_cache = read_and_decode(model, recipe, row, all_real(row), decoded[i : i + 1])
            assert (together[i] - alone[0]).abs().max() < 1e-4
            for index in set(range(len(cache.layers))) - set(cache.left_alone):
                mine = cache.layers[index].store.positions[i]
                theirs = alone_cache.layers[index].store.positions[0].expand(len(mine), -1)
                assert [p[p >= 0].tolist() for p in mine] == [p.tolist() for p in theirs]


@pytest.mark.parametrize("length", [40, 1200])
def test_parts_of_a_prompt_and_whole_runs(length: int) -> None:
    """In parts the same number stays; with whole runs kept it is the dense model, byte for byte."""
    model, prompt = tiny("llama_gqa"), tokens(2, length)
    whole, parts = (Recipe([LagKV(sink_size=4, lag_size=16)]).cache(model) for _ in range(2))
    with torch.no_grad():
        model(prompt, past_key_values=whole)
        for part in prompt.split(23, dim=1):
            model(part, past_key_values=parts)
        assert whole.layers[0].store.length == parts.layers[0].store.length < length
        dense, plain = read_and_decode(model, Recipe(), prompt, all_real(prompt), tokens(2, 5))
        kept, cache = read_and_decode(
            model, Recipe([LagKV(ratio=1.0, sink_size=4, lag_size=16)]), prompt, all_real(prompt), tokens(2, 5)
        )
    assert torch.equal(kept, dense)
    assert cache_bytes(cache) == cache_bytes(plain)


def test_what_it_takes() -> None:
    assert LagKV().claimed(DenseCache(tokens=8000)) == 4928 / 8000
    with pytest.raises(ParameterError, match="lag_size=0 is not allowed; allowed is int, 1 or more"):
        LagKV(lag_size=0)
