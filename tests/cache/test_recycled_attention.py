"""Recycled Attention against its rule, written naively: sets of slots, one row, head and token at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from contracts.tiny import tiny, tokens
from pith.attention import LayerCache, PithCache
from pith.attention.answers import Answers
from pith.attention.call import Call
from pith.attention.in_flight import CacheGroup
from pith.attention.reader import Reader
from pith.cache.recycled_attention import RecycledAttention
from pith.core import Recipe
from pith.models import Subject, load
from pith.tasks import Needle

CALL = Call(torch.nn.Identity(), mask=None, positions=None, scaling=None, softcap=None, sinks=None, dropout=0.0)
PROMPT = 19


def run(method: RecycledAttention, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[Any, ...]:
    """Outputs of the decoded tokens, [batch, query_head, token, dim], and what was held in mind after each."""
    layer = LayerCache(0, 1, CacheGroup([0], 1), Answers(reader=Reader(method)))
    layer.attend(CALL, query[:, :, :PROMPT], keys[:, :, :PROMPT], values[:, :, :PROMPT])
    outs, chosen = [], []
    for i in range(PROMPT, query.shape[2]):
        now = slice(i, i + 1)
        outs.append(layer.attend(CALL, query[:, :, now], keys[:, :, now], values[:, :, now]))
        assert layer.reader is not None
        chosen.append(layer.reader.memory.get("chosen"))
    return torch.cat(outs, dim=2), chosen


def weights(query: torch.Tensor, keys: torch.Tensor, head: int, token: int, read: list[int]) -> torch.Tensor:
    """The mean attention of the heads of a group, over what is read."""
    group = query.shape[0] // keys.shape[0]
    heads = query[head * group : (head + 1) * group, token]
    return (heads @ keys[head, read].T / keys.shape[-1] ** 0.5).softmax(dim=-1)


def best_pooled(votes: list[float], method: RecycledAttention) -> set[int]:
    """The k best, each as good as the best of its neighbours; of equal ones the earlier."""
    half = method.kernel // 2
    pooled = [max(votes[max(j - half, 0) : j + half + 1]) for j in range(len(votes))]
    return set(sorted(range(len(votes)), key=lambda j: -pooled[j])[: method.k])


def naive(method: RecycledAttention, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Any:
    """One row: outputs [query_head, token, dim], and the chosen sets of each key-value head after each token."""
    heads, sets, outs, since = range(keys.shape[0]), [], [], 0
    chosen, last_full = {}, query[:, PROMPT - 1]
    for head in heads:
        votes = weights(query, keys, head, PROMPT - 1, list(range(PROMPT))).mean(dim=0)
        chosen[head] = best_pooled(votes.tolist(), method)
    for i in range(PROMPT, query.shape[1]):
        since += 1
        alike = torch.cosine_similarity(query[:, i].flatten(), last_full.flatten(), dim=0)
        full = since >= method.stride or (since % method.interval == 0 and bool(alike < method.s))
        if full:
            since, last_full = 0, query[:, i]
        out = []
        for head in heads:
            read = list(range(i + 1)) if full else [*sorted(chosen[head]), i]
            each = weights(query, keys, head, i, read)
            out.append(each @ values[head, read])
            votes = each.mean(dim=0)
            if full:
                chosen[head] = best_pooled(votes.tolist(), method)
            else:
                chosen[head] = {read[j] for j in votes.argsort(descending=True)[: method.k]}
        outs.append(torch.cat(out))
        sets.append(dict(chosen))
    return torch.stack(outs, dim=1), sets


@pytest.mark.parametrize(("query_heads", "kv_heads"), [(3, 3), (8, 2)])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(
    ("k", "stride", "s", "interval"), [(5, 4, -1.0, 5), (7, 100, -1.0, 5), (6, 9, 0.0, 2), (23, 3, -1.0, 5)]
)
def test_what_is_read_is_the_rules(
    query_heads: int, kv_heads: int, kernel: int, k: int, stride: int, s: float, interval: int
) -> None:
    torch.manual_seed(0)
    query, keys = torch.randn(3, query_heads, PROMPT + 17, 8), torch.randn(3, kv_heads, PROMPT + 17, 8)
    values = torch.randn_like(keys)
    method = RecycledAttention(k=k, stride=stride, s=s, interval=interval, kernel=kernel)
    outs, chosen = run(method, query, keys, values)
    for row in range(3):
        expected, sets = naive(method, query[row], keys[row], values[row])
        assert torch.allclose(outs[row], expected, atol=1e-5)
        for mine, theirs in zip(chosen, sets, strict=True):
            for head in range(kv_heads):
                assert mine is None or set(mine[row, head].tolist()) == theirs[head]


def test_rows_start_their_full_steps_when_they_need_them() -> None:
    torch.manual_seed(0)
    query = torch.randn(2, 2, PROMPT + 4, 8)
    query[0, :, PROMPT - 1 :] = query[0, :, PROMPT - 1 : PROMPT]  # its queries stay alike
    layer = LayerCache(0, 1, CacheGroup([0], 1), Answers(reader=Reader(RecycledAttention(k=5, s=0.9, interval=1))))
    layer.attend(CALL, *[query[:, :, :PROMPT]] * 3)
    layer.attend(CALL, *[query[:, :, PROMPT : PROMPT + 1]] * 3)
    assert layer.reader is not None
    assert layer.reader.memory["since"].tolist() == [1, 0]


def decode(cache: PithCache, model: Any, prompt: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    logits = [model(prompt, past_key_values=cache).logits[:, -1]]
    logits += [model(token, past_key_values=cache).logits[:, -1] for token in decoded.split(1, dim=1)]
    return torch.stack(logits, dim=1)


@torch.no_grad()
@pytest.mark.parametrize("recipe", ["recycled_attention(k=4, stride=1)", "recycled_attention(k=60)"])
def test_a_stride_of_one_and_room_for_everything_are_the_dense_model(recipe: str) -> None:
    model, prompt, decoded = tiny("llama_gqa"), tokens(2, 41), tokens(2, 12, seed=1)
    dense = decode(Recipe().cache(model), model, prompt, decoded)
    mine = decode(Recipe.parse(recipe).cache(model), model, prompt, decoded)
    model.set_attn_implementation("sdpa")
    assert (mine - dense).abs().max() < 1e-5


@torch.no_grad()
def test_what_a_step_leaves_out_is_still_stored_and_read_by_the_next_full_one() -> None:
    model, prompt, decoded = tiny("llama_gqa"), tokens(1, 41), tokens(1, 9, seed=1)
    cache = Recipe.parse("recycled_attention(k=4, stride=9)").cache(model)
    decode(cache, model, prompt, decoded)
    model.set_attn_implementation("sdpa")
    for layer in cache.layers:
        assert layer.store.positions[0, 0].tolist() == list(range(50))
        chosen, read = layer.reader.memory["chosen"][0], layer.store
        assert layer.reader.memory["since"].tolist() == [0]
        assert chosen.shape == (2, 4)
        assert read.length == 50


@torch.no_grad()
def test_an_eviction_makes_the_next_step_full() -> None:
    model, prompt, decoded = tiny("llama_gqa"), tokens(1, 60), tokens(1, 2, seed=1)
    cache = Recipe.parse("snapkv(budget=0.5) + recycled_attention(k=4)").cache(model)
    model(prompt, past_key_values=cache)
    reader = cache.layers[0].reader
    assert reader is not None
    assert not reader.memory
    for i in range(2):
        model(decoded[:, i : i + 1], past_key_values=cache)
        assert reader.memory["since"].tolist() == [i]
    model.set_attn_implementation("sdpa")


def test_more_needles_are_found_than_by_evictions_that_hold_as_many_pairs() -> None:
    model, task = load("builtin"), Needle(length=512, count=8)
    found = {}
    for name in ("recycled_attention(k=51)", "streaming_llm(budget=51)", "h2o(budget=51)"):
        found[name] = task.run(Subject(model.model, model.tokenizer, Recipe.parse(name))).value
    mine = found.pop("recycled_attention(k=51)")
    assert mine >= max(found.values()) + 0.25
