"""TokenSelect against its rule, written naively: one row, head and token at a time."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from contracts.layers import OneLayer, rotated
from contracts.tiny import tiny, tokens
from pith.cache.token_select import TokenSelect
from pith.core import ParameterError, Recipe, RecipeError


class Naive:
    """The rule for one row: un-rotated queries and keys [head, token, dim], read in parts."""

    def __init__(self, method: TokenSelect, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.method, self.query, self.keys, self.values = method, query, keys, values
        self.memory: tuple[torch.Tensor, list[int]] | None = None

    def votes(self, mean: torch.Tensor, between: range) -> torch.Tensor:
        total, kv_head = torch.zeros(len(between)), self.keys.shape[0]
        for head in range(len(mean)):
            mine = head // (len(mean) // kv_head) if self.method.heads == "group" else head % kv_head
            total += torch.stack([mean[head] @ self.keys[mine, j] for j in between]).softmax(dim=0)
        return total

    def list_for(self, begin: int, end: int) -> list[int]:
        m = self.method
        if m.n_init + m.k + m.n_local >= end:
            return list(range(end))
        turned = [rotated(self.query[:, begin + i], m.n_local + i) for i in range(end - begin)]
        mean = torch.stack(turned).mean(dim=0)
        before = self.memory
        if before is None or not m.theta or torch.cosine_similarity(mean.flatten(), before[0].flatten(), 0) < m.theta:
            between = range(m.n_init, end - m.n_local)
            best = self.votes(mean, between).argsort(descending=True)[: m.k]
            before = self.memory = (mean, sorted(between[j] for j in best.tolist()))
        return [*range(m.n_init), *before[1], *range(end - m.n_local, end)]

    def read(self, begin: int, end: int) -> torch.Tensor:
        """[query_head, end - begin, dim]."""
        listed, group = self.list_for(begin, end), self.query.shape[0] // self.keys.shape[0]
        out = torch.zeros(self.query.shape[0], end - begin, self.values.shape[-1])
        for head in range(len(self.query)):
            for i in range(end - begin):
                place = len(listed) - (end - begin) + i
                query = rotated(self.query[head, begin + i], place)
                keys = torch.stack([rotated(self.keys[head // group, listed[j]], j) for j in range(place + 1)])
                weights = (keys @ query / query.shape[-1] ** 0.5).softmax(dim=0)
                out[head, i] = weights @ self.values[head // group, listed[: place + 1]]
        return out


def parts(length: int, decoded: int, chunk: int) -> list[tuple[int, int]]:
    """The short chunk is the first."""
    ends = [*range(length, 0, -chunk)][::-1]
    return [*zip([0, *ends[:-1]], ends, strict=True), *((i, i + 1) for i in range(length, length + decoded))]


@pytest.mark.parametrize(("query_heads", "kv_heads"), [(3, 3), (4, 2)])
@pytest.mark.parametrize("theta", [0.0, 0.6])
@pytest.mark.parametrize("heads", ["group", "modulo"])
def test_what_is_read_is_the_rules(
    query_heads: int, kv_heads: int, theta: float, heads: Literal["group", "modulo"]
) -> None:
    torch.manual_seed(1)
    prompt, decoded, empty = 29, 5, [0, 7, 20]
    method = TokenSelect(n_init=2, n_local=6, k=4, chunk=5, theta=theta, heads=heads)
    query, keys, values = (torch.randn(3, n, prompt + decoded, 8) for n in (query_heads, kv_heads, kv_heads))
    query[:, :, 1::2] = query[:, :, ::2] + 0.3 * query[:, :, 1::2]  # neighbours are alike
    layer = OneLayer(method, query_heads, kv_heads)
    out = layer.read(query, keys, values, [prompt, *[1] * decoded], empty)
    for row, padding in enumerate(empty):
        naive = Naive(method, query[row, :, padding:], keys[row, :, padding:], values[row, :, padding:])
        expected = torch.cat([naive.read(*part) for part in parts(prompt - padding, decoded, 5)], dim=1)
        assert torch.allclose(out[row, :, padding:], expected, atol=1e-4)


def test_a_choice_is_used_again_while_queries_are_alike() -> None:
    torch.manual_seed(0)
    query, keys = torch.randn(1, 2, 44, 8), torch.randn(1, 2, 44, 8)
    query[:, :, 40:43] = query[:, :, 39:40]
    layer = OneLayer(TokenSelect(n_init=2, n_local=6, k=4, chunk=6, theta=0.95), 2, 2)
    chosen = []
    layer.read(query, keys, keys, [39])
    for _ in range(5):
        layer.read(query, keys, keys, [1])
        assert layer.layer.reader is not None
        chosen.append(layer.layer.reader.memory["chosen"])
    assert chosen[0] is chosen[1] is chosen[2] is chosen[3]
    assert chosen[4] is not chosen[3]


@torch.no_grad()
def test_short_texts_are_the_dense_models() -> None:
    model, ids = tiny("llama_gqa"), tokens(2, 48)
    dense = model(ids).logits
    cache = Recipe.parse("token_select(n_init=8, k=24, n_local=16, chunk=16)").cache(model)
    mine = torch.cat([model(part, past_key_values=cache).logits for part in ids.split([45, 1, 1, 1], dim=1)], dim=1)
    model.set_attn_implementation("sdpa")
    assert (mine - dense).abs().max() < 1e-4


@torch.no_grad()
def test_a_prompt_in_whole_chunks_is_what_it_is_at_once() -> None:
    model, ids, recipe = tiny("llama_gqa"), tokens(2, 80), "token_select(n_init=4, k=8, n_local=16, chunk=16)"
    outs = []
    for lengths in ([80], [32, 48], [16] * 5):
        cache = Recipe.parse(recipe).cache(model)
        outs.append(torch.cat([model(x, past_key_values=cache).logits for x in ids.split(lengths, dim=1)], dim=1))
    model.set_attn_implementation("sdpa")
    assert (outs[0] - outs[1]).abs().max() < 1e-4
    assert (outs[0] - outs[2]).abs().max() < 1e-4


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ParameterError, match="chunk=512 is not allowed; allowed is at most n_local=64"):
        TokenSelect(n_local=64)
    with pytest.raises(RecipeError, match="token_select keeps all pairs"):
        Recipe.parse("snapkv(budget=0.5) + token_select")
