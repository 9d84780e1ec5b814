"""ThinK against its equation, written naively, and on keys of a model that has learnt something."""

from __future__ import annotations

import pytest
import torch

from contracts.tiny import tiny, tokens
from pith.attention.storage import Context, Storage
from pith.attention.store import Store
from pith.cache.ada_kv import AdaKV
from pith.cache.think import ThinK
from pith.core import DenseCache, Recipe, RecipeError
from pith.measure import cache_bytes
from pith.models import builtin
from pith.tasks.heldout import heldout_text


def naive_kept(query: torch.Tensor, keys: torch.Tensor, method: ThinK) -> list[int]:
    """The channels of one head: the largest Frobenius norms of q_c k_c^T, over queries [n, d] and keys [m, d]."""
    dim = keys.shape[1]
    norms = [float(torch.linalg.matrix_norm(torch.outer(query[:, c], keys[:, c]))) for c in range(dim)]
    return sorted(sorted(range(dim), key=lambda c: norms[c])[int(dim * method.pruning_ratio) :])


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize(("count", "dim", "ratio"), [(41, 16, 0.4), (20, 8, 0.6), (33, 10, 0.5), (70, 16, 0.0)])
def test_the_channels_with_the_largest_norms_are_kept(group: int, count: int, dim: int, ratio: float) -> None:
    torch.manual_seed(0)
    method = ThinK(pruning_ratio=ratio, recent_size=8)
    query, keys = torch.randn(2, 2 * group, count, dim), torch.randn(2, 2, count, dim)
    due = method.due("keys", count, prefill=True)
    packed = method.encode(keys[:, :, :due], "keys", Context(query=query, rest=keys[:, :, due:]))
    restored = method.decode(packed)
    for row in range(2):
        for head in range(2):
            asked = query[row, head * group : (head + 1) * group, -32:].flatten(0, 1)
            kept = naive_kept(asked, keys[row, head], method)
            assert packed.groups["kept"][row, head, 0].nonzero()[:, 0].tolist() == kept
            expected = torch.zeros(due, dim)
            expected[:, kept] = keys[row, head, :due, kept]
            assert torch.equal(restored[row, head], expected)


def test_products_with_what_is_there_are_those_with_zeros() -> None:
    torch.manual_seed(0)
    method, keys = ThinK(), torch.randn(2, 3, 45, 16)
    packed = method.encode(keys, "keys", Context(query=torch.randn(2, 6, 45, 16)))
    query = torch.randn(2, 3, 5, 16)
    torch.testing.assert_close(method.dot(query, packed), Storage.dot(method, query, packed))


def test_padding_has_no_say() -> None:
    torch.manual_seed(0)
    method, keys, query = ThinK(recent_size=4, window=8), torch.randn(1, 2, 30, 8), torch.randn(1, 4, 30, 8)
    alone = method.encode(keys[:, :, 25:26], "keys", Context(query=query[:, :, 25:], rest=keys[:, :, 26:]))
    keys[:, :, :25] *= 100
    query[:, :, :25] *= 100
    real = torch.arange(30)[None, None] >= 25
    padded = method.encode(keys[:, :, :26], "keys", Context(query=query, asks=real[0], rest=keys[:, :, 26:], real=real))
    assert torch.equal(padded.groups["kept"], alone.groups["kept"])
    assert torch.equal(padded.tokens["channels"][:, :, 25:], alone.tokens["channels"])


def test_only_a_prompts_keys_are_pruned_but_for_the_last() -> None:
    method, store = ThinK(), Store(ThinK())
    assert [method.due("keys", n, True) for n in (31, 32, 33)] == [0, 0, 1]
    assert method.due("values", 100, True) == method.due("keys", 100, False) == 0
    pairs = torch.randn(1, 2, 100, 16)
    store.append(pairs, pairs, torch.arange(100, dtype=torch.int32)[None, None], decoding=False)
    store.settle(torch.randn(1, 2, 100, 16))
    for token in range(100, 150):
        one = torch.randn(1, 2, 1, 16)
        store.append(one, one, torch.tensor([[[token]]], dtype=torch.int32), decoding=True)
        store.settle(torch.randn(1, 2, 1, 16), prefill=False)
    assert (store.key_column.packed, store.key_column.recent.length) == (68, 82)
    assert (store.value_column.packed, store.value_column.recent.length) == (0, 150)
    assert torch.equal(store.values[:, :, :100], pairs)


@torch.no_grad()
def test_a_cache_holds_what_it_says() -> None:
    model, prompt = tiny("llama_gqa", torch.bfloat16), tokens(1, 500)
    held = []
    for recipe in (Recipe(), Recipe([ThinK(pruning_ratio=0.5)])):
        cache = recipe.cache(model)
        model(prompt, past_key_values=cache)
        held.append(cache_bytes(cache) - 2 * 4 * 500)
    model.set_attn_implementation("sdpa")
    assert held[1] / held[0] == pytest.approx(ThinK(pruning_ratio=0.5).claimed(DenseCache(tokens=500)), rel=0.01)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama_mha", "llama_gqa", "gemma3", "gpt_oss"])
def test_a_prompt_is_exact_and_nothing_pruned_is_dense(name: str) -> None:
    model, prompt, decoded = tiny(name), tokens(2, 77), tokens(2, 5, seed=1)
    before = model.config._attn_implementation
    dense = model(torch.cat([prompt, decoded], dim=1)).logits
    for ratio in (0.0, 0.4):
        cache = Recipe([ThinK(pruning_ratio=ratio)]).cache(model)
        first = model(prompt, past_key_values=cache).logits
        assert (first - dense[:, :77]).abs().max() < 1e-4
        steps = [model(decoded[:, i : i + 1], past_key_values=cache).logits for i in range(5)]
        apart = (torch.cat(steps, dim=1) - dense[:, 77:]).abs().max()
        assert (apart < 1e-4) == (ratio == 0.0)
    model.set_attn_implementation(before)


@torch.no_grad()
def test_on_real_keys_logits_are_nearer_than_with_the_smallest_or_random_channels_pruned() -> None:
    model, tokenizer = builtin()
    prompt = torch.tensor([tokenizer(heldout_text()[:4000])["input_ids"][:512]])
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    cache = Recipe().cache(model)
    for layer in cache.layers:
        layer.witness = lambda step: seen.append((step.query.clone(), step.keys.clone()))
    model(prompt, past_key_values=cache)
    model.set_attn_implementation("sdpa")
    torch.manual_seed(0)
    for query, keys in seen:
        count = 32 - int(32 * 0.4)
        asked = query[:, :, -32:].unflatten(1, (keys.shape[1], -1)).flatten(2, 3)
        logits = asked @ keys.mT

        def error(kept: torch.Tensor, asked=asked, keys=keys, logits=logits) -> float:
            mask = torch.zeros(1, keys.shape[1], 1, 32).scatter_(3, kept.unsqueeze(2), 1.0)
            return float(((asked * mask) @ keys.mT - logits).norm() / logits.norm())

        mine = error(ThinK().scores(keys, Context(query=query)).topk(count).indices)
        assert mine < error(keys.square().mean(dim=2).topk(count).indices)
        assert mine < 0.6 * min(error(torch.rand(1, keys.shape[1], 32).topk(count).indices) for _ in range(5))


def test_heads_with_different_numbers_of_pairs_are_refused() -> None:
    with pytest.raises(RecipeError, match="ada_kv and think cannot be combined"):
        Recipe([AdaKV(), ThinK()])
