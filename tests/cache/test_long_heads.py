"""LongHeads against its equations, written naively: loops over rows, heads and positions."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import pytest
import torch

from contracts.layers import OneLayer, rotated
from contracts.tiny import tiny, tokens
from pith.attention import Part, Step
from pith.cache.long_heads import LongHeads
from pith.core import ParameterError, Recipe, RecipeError

SMALL = LongHeads(chunk_size=4, attention_length=16, encoding_batch_size=5)


def draw(query_heads: int, kv_heads: int, length: int, rows: int = 1, seed: int = 0) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, heads, length, 8, generator=g) for heads in (query_heads, kv_heads, kv_heads)]


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (q @ k.T / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v


def naive_summary(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """c_k of one chunk [token, dim] of one head."""
    q, k = (torch.stack([rotated(x[t], t) for t in range(len(x))]) for x in (q, k))
    return attended(attended(q, k, v).mean(dim=0), k, k)


def naive(
    m: LongHeads, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, dict[tuple[int, int], list[int]]]:
    """The outputs of one row [head, token, dim], and the chunks that each token and head chose."""
    heads, total, _ = q.shape
    group, w, chunks = heads // len(k), m.chunk_size, m.attention_length // m.chunk_size
    out, chosen = torch.zeros_like(q), {}
    summaries = [
        [naive_summary(*(x[:, c * w : c * w + w][i] for x, i in ((q, h), (k, h // group), (v, h // group))))
         for c in range(total // w)]
        for h in range(heads)
    ]  # fmt: skip
    merge = {"mean": lambda xs: sum(xs) / len(xs), "max": max, "sum": sum, None: None}[m.group]
    for i in range(total):
        for h in range(heads):
            own = i // w
            ids = list(range(own + 1))
            if i >= m.attention_length:
                votes = range(h - h % group, h - h % group + group) if merge else [h]

                def score(c: int, i: int = i, h: int = h, votes: object = votes) -> float:
                    each = [float(q[x, i] @ summaries[x][c]) for x in votes]  # type: ignore[attr-defined]
                    return merge(each) if merge else each[0]

                best = sorted(range(1, own - 1), key=lambda c: -score(c))[: chunks - 3]
                ids = chosen[i, h] = [0, *sorted(best), own - 1, own]
            read = [t for c in ids for t in range(c * w, c * w + w) if t <= i]
            keys = torch.stack([rotated(k[h // group, t], place) for place, t in enumerate(read)])
            out[h, i] = attended(rotated(q[h, i], len(read) - 1), keys, v[h // group, read])
    return out, chosen


@pytest.mark.parametrize(
    ("query_heads", "kv_heads", "group"), [(2, 2, None), (4, 2, None), (4, 2, "mean"), (4, 2, "max"), (4, 2, "sum")]
)
@pytest.mark.parametrize("lengths", [[39, *[1] * 6], [7, 1, 1, 28, 1, 1, 1], [9, *[1] * 13]])
def test_reading_is_the_papers(
    query_heads: int, kv_heads: int, group: Literal["mean", "max", "sum"] | None, lengths: list[int]
) -> None:
    q, k, v = draw(query_heads, kv_heads, sum(lengths))
    method = dataclasses.replace(SMALL, group=group)
    read = OneLayer(method, query_heads, kv_heads).read(q, k, v, lengths)
    assert (read[0] - naive(method, q[0], k[0], v[0])[0]).abs().max() < 1e-5


def test_heads_choose_for_themselves() -> None:
    q, k, v = draw(4, 2, 60)
    chosen = naive(SMALL, q[0], k[0], v[0])[1]
    assert any(len({tuple(chosen[i, h]) for h in range(4)}) > 1 for i in range(30, 60))


@pytest.mark.parametrize("released", [False, True])
def test_a_padded_row_reads_what_it_reads_alone(released: bool) -> None:
    method, padding = dataclasses.replace(SMALL, released=released), [0, 7, 33]
    q, k, v = draw(4, 2, 60, rows=3)
    lengths = [45, *[1] * 15]
    together = OneLayer(method, 4, 2).read(q, k, v, lengths, padding)
    for row, first in enumerate(padding):
        own = [x[row : row + 1, :, first:] for x in (q, k, v)]
        alone = OneLayer(method, 4, 2).read(*own, [45 - first, *lengths[1:]])
        assert (together[row, :, first:] - alone[0]).abs().max() < 1e-5


def test_texts_of_the_attention_length_give_the_dense_models_logits() -> None:
    model, prompt = tiny("llama_gqa"), tokens(2, 64)
    with torch.no_grad():
        dense = model(prompt).logits
        cache = Recipe([LongHeads(chunk_size=8, attention_length=64)]).cache(model)
        read = torch.cat([model(part, past_key_values=cache).logits for part in prompt.split([61, 1, 1, 1], dim=1)], 1)
    model.set_attn_implementation("sdpa")
    assert (read - dense).abs().max() < 2e-5


@pytest.mark.parametrize("released", [False, True])
def test_a_stream_reads_and_remembers_a_bounded_number_of_tokens(released: bool) -> None:
    q, k, v = draw(2, 1, 300)
    method = dataclasses.replace(SMALL, released=released)
    select, most, farthest = method.select, 0, 0

    def watched(step: Step) -> list[Part] | None:
        nonlocal most, farthest
        parts = select(step)
        for part in parts or []:
            assert part.query_at is not None
            most = max(most, int((part.index >= 0).sum(dim=-1).max()))
            farthest = max(farthest, int(part.query_at.max()))
        return parts  # type: ignore[return-value]

    watching = dataclasses.replace(method)
    object.__setattr__(watching, "select", watched)
    one = OneLayer(watching, 2, 1)
    assert one.read(q, k, v, [50, *[1] * 250]).isfinite().all()
    assert most <= 16
    assert farthest < 16
    assert one.layer.reader is not None
    memory = one.layer.reader.memory
    assert memory["queries"].shape == (1, 2, 4 + 5, 8)
    assert memory["vectors"].shape == (1, 2, 300 // 4, 8)


def test_the_chunk_of_a_planted_fact_is_read() -> None:
    """Keys of one chunk that agree with the newest query; where it ends up decides how the query is turned."""
    q, k, v = draw(2, 2, 300)
    needle = torch.nn.functional.normalize(torch.randn(2, 8), dim=-1)
    for t in range(100, 104):
        k[0, :, t] = torch.stack([rotated(4 * needle[h], -(t % 4)) for h in range(2)])  # as the summary rotates it back
        v[0, :, t] = 4 * needle
    q[0, :, 299] = 4 * needle
    method, chosen = dataclasses.replace(SMALL), []
    choose = method.choose

    def watched(step: Step, *given: torch.Tensor) -> torch.Tensor:
        chosen.append(choose(step, *given))
        return chosen[-1]

    object.__setattr__(method, "choose", watched)
    OneLayer(method, 2, 2).read(q, k, v, [299, 1])
    assert (chosen[-1][0, :, 0] == 25).any(dim=-1).all()


def test_what_is_held_in_main_memory_is_read_alike() -> None:
    q, k, v = draw(4, 2, 80)
    here, away = OneLayer(SMALL, 4, 2), OneLayer(dataclasses.replace(SMALL, offload="cpu"), 4, 2)
    away.layer.answers = dataclasses.replace(away.layer.answers, device=torch.device("cpu"))
    away.layer.reset()
    assert not away.layer.store.plain
    lengths = [60, *[1] * 20]
    assert (here.read(q, k, v, lengths) - away.read(q, k, v, lengths)).abs().max() < 1e-5


def test_after_a_crop_older_queries_look_at_all_keys_alike() -> None:
    q, k, v = draw(2, 1, 90)
    one = OneLayer(SMALL, 2, 1)
    one.read(q[:, :, :80], k[:, :, :80], v[:, :, :80], [80])
    one.layer.crop(-3)
    assert one.read(q[:, :, :78], k[:, :, :78], v[:, :, :78], [1]).isfinite().all()
    assert one.layer.reader is not None
    summaries = one.layer.reader.memory["vectors"][0]
    for chunk in range(77 // 4):
        own = slice(4 * chunk, 4 * chunk + 4)
        expected = naive_summary(torch.zeros(4, 8), k[0, 0, own], v[0, 0, own])
        assert (summaries[:, chunk] - expected).abs().max() < 1e-5


def test_what_cannot_be() -> None:
    with pytest.raises(ParameterError, match="attention_length=4000 is not allowed; allowed is a multiple of"):
        LongHeads(attention_length=4000)
    with pytest.raises(ParameterError, match="attention_length=512 is not allowed"):
        LongHeads(attention_length=512)
    with pytest.raises(RecipeError, match="long_heads keeps all pairs"):
        Recipe.parse("long_heads() + snapkv(budget=0.5)")
