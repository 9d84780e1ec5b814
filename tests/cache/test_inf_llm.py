"""InfLLM against its equations, written naively: loops over rows, heads and positions."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from contracts.layers import OneLayer, rotated
from contracts.tiny import tiny, tokens
from pith.attention import Part, Step
from pith.cache.inf_llm import InfLLM
from pith.core import ParameterError, Recipe, RecipeError

SMALL = InfLLM(block_size=4, n_init=3, n_local=10, topk=2, repr_topk=2, exec_block_size=5)


def draw(query_heads: int, kv_heads: int, length: int, rows: int = 1, seed: int = 0) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, heads, length, 8, generator=g) for heads in (query_heads, kv_heads, kv_heads)]


def naive(m: InfLLM, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """What the queries [head, token, dim] of one row read; parts of these lengths are read one after another."""
    heads, total, dim = q.shape
    group = heads // len(k)
    out, mass = torch.zeros_like(q), torch.zeros(heads, total)
    blocks: list[tuple[int, list[torch.Tensor]]] = []  # first token, and a vector for each head
    sinks = rest = end = 0
    for length in lengths:
        stop = end + length
        while end < stop:
            start, end = end, min(end + m.exec_block_size, stop)
            chosen = list(range(len(blocks)))
            if len(blocks) > m.topk:
                far = [sum(rotated(q[h, i], m.n_local - 1) for i in range(start, end)) for h in range(heads)]
                scores = [sum(float(f @ vector) for f, vector in zip(far, b[1], strict=True)) for b in blocks]
                chosen = sorted(chosen, key=lambda b: -scores[b])[: m.topk]
            far_tokens = list(range(sinks)) + [blocks[b][0] + t for b in chosen for t in range(m.block_size)]
            new_mass = torch.zeros_like(mass)
            for h in range(heads):
                for i in range(start, end):
                    near = list(range(max(i - m.n_local + 1, 0), i + 1))
                    old = far_tokens + list(range(rest, i - m.n_local + 1))
                    logits = [float(rotated(q[h, i], i) @ rotated(k[h // group, j], j)) for j in near]
                    logits += [float(rotated(q[h, i], m.n_local - 1) @ k[h // group, j]) for j in old]
                    weights = (torch.tensor(logits) / math.sqrt(dim)).softmax(dim=0)
                    out[h, i] = weights @ v[h // group, near + old]
                    new_mass[h, near] += weights[: len(near)]
            mass += new_mass
            while sinks < m.n_init and end - rest > m.n_local:
                sinks, rest = sinks + 1, rest + 1
            while end - rest - m.block_size >= m.n_local:
                vectors = []
                for h in range(heads):
                    own = sorted(range(rest, rest + m.block_size), key=lambda j, h=h: -float(mass[h, j]))
                    vectors.append(k[h // group, own[: m.repr_topk]].mean(dim=0))
                blocks.append((rest, vectors))
                rest += m.block_size
    return out


@pytest.mark.parametrize(("query_heads", "kv_heads"), [(2, 2), (4, 2)])
@pytest.mark.parametrize("lengths", [[41, *[1] * 6], [7, 1, 1, 33, 1, 1, 1], [9, 1]])
def test_reading_is_the_papers(query_heads: int, kv_heads: int, lengths: list[int]) -> None:
    q, k, v = draw(query_heads, kv_heads, sum(lengths))
    read = OneLayer(SMALL, query_heads, kv_heads).read(q, k, v, lengths)
    assert (read[0] - naive(SMALL, q[0], k[0], v[0], lengths)).abs().max() < 1e-5


@pytest.mark.parametrize(("execution", "padding"), [(1, [0, 7, 33]), (5, [0, 10, 35])])
def test_a_padded_row_reads_what_it_reads_alone(execution: int, padding: list[int]) -> None:
    method = dataclasses.replace(SMALL, exec_block_size=execution)
    q, k, v = draw(4, 2, 60, rows=3)
    lengths = [45, *[1] * 15]
    together = OneLayer(method, 4, 2).read(q, k, v, lengths, padding)
    for row, first in enumerate(padding):
        own = [x[row : row + 1, :, first:] for x in (q, k, v)]
        alone = OneLayer(method, 4, 2).read(*own, [45 - first, *lengths[1:]])
        assert (together[row, :, first:] - alone[0]).abs().max() < 1e-5


def test_texts_in_the_local_window_give_the_dense_models_logits() -> None:
    model, prompt = tiny("llama_gqa"), tokens(2, 61)
    with torch.no_grad():
        dense = model(prompt).logits
        cache = Recipe([dataclasses.replace(SMALL, n_local=64)]).cache(model)
        read = torch.cat([model(part, past_key_values=cache).logits for part in prompt.split([58, 1, 1, 1], dim=1)], 1)
    model.set_attn_implementation("sdpa")
    assert (read - dense).abs().max() < 2e-5


def test_a_stream_reads_and_remembers_a_bounded_number_of_tokens() -> None:
    q, k, v = draw(2, 1, 400)
    one, widths, farthest = OneLayer(SMALL, 2, 1), set(), 0
    select = SMALL.select

    def watched(step: Step) -> list[Part]:
        nonlocal farthest
        parts = list(select(step))
        widths.add(sum(part.index.shape[-1] for part in parts))
        farthest = max(farthest, *(int(p.query_at.max()) for p in parts if p.query_at is not None))
        return parts

    watching = dataclasses.replace(SMALL)
    object.__setattr__(watching, "select", watched)
    assert one.layer.reader is not None
    one.layer.reader.reading = watching
    out = one.read(q, k, v, [50, *[1] * 350])
    assert out.isfinite().all()
    # sinks, two blocks, an unfinished one, the window; while a prompt is read, the queries of its block twice
    assert max(widths) <= 3 + 2 * 4 + 3 + 10 + 2 * 5
    assert farthest < 10 + 5  # the model never sees another distance
    memory = one.layer.reader.memory
    assert memory["mass"].shape == (1, 2, 10 + 4 + 5)
    assert memory["vectors"].shape == (1, 2, (400 - 3 - 10) // 4, 8)


def test_the_block_of_a_planted_fact_is_fetched() -> None:
    """A key far in the past that the newest query points at, and that the query just behind it pointed at too."""
    q, k, v = draw(2, 2, 300)
    fact, needle = 101, 6 * torch.nn.functional.normalize(torch.randn(2, 8), dim=-1)
    k[0, :, fact] = needle
    for h in range(2):
        for i in (fact + 1, fact + 2, 299):
            q[0, h, i] = 3 * rotated(needle[h], -(i - fact if i < 299 else SMALL.n_local - 1))
    v[0, :, fact] = 100.0
    out = OneLayer(SMALL, 2, 2).read(q, k, v, [298, 1, 1])
    assert (out[0, :, -1].mean(dim=-1) > 50).all()
    assert (out[0, :, -2].mean(dim=-1) < 50).all()


def test_what_is_held_in_main_memory_is_read_alike() -> None:
    q, k, v = draw(4, 2, 80)
    here, away = OneLayer(SMALL, 4, 2), OneLayer(dataclasses.replace(SMALL, offload="cpu"), 4, 2)
    away.layer.answers = dataclasses.replace(away.layer.answers, device=torch.device("cpu"))
    away.layer.reset()
    assert not away.layer.store.plain
    lengths = [60, *[1] * 20]
    assert torch.equal(here.read(q, k, v, lengths), away.read(q, k, v, lengths))


def test_after_a_crop_blocks_stand_for_all_their_keys() -> None:
    q, k, v = draw(2, 1, 90)
    one = OneLayer(SMALL, 2, 1)
    one.read(q[:, :, :80], k[:, :, :80], v[:, :, :80], [80])
    one.layer.crop(-3)
    out = one.read(q[:, :, :78], k[:, :, :78], v[:, :, :78], [1])
    assert out.isfinite().all()
    assert one.layer.reader is not None
    vectors = one.layer.reader.memory["vectors"][0]
    for block in range((77 - 3 - 10) // 4):
        mean = k[0, 0, 3 + 4 * block : 7 + 4 * block].mean(dim=0)
        assert (vectors[:, block] - mean).abs().max() < 1e-6


def test_what_cannot_be() -> None:
    with pytest.raises(ParameterError, match="repr_topk=5 is not allowed; allowed is at most block_size=4"):
        InfLLM(block_size=4, repr_topk=5)
    with pytest.raises(RecipeError, match="inf_llm keeps all pairs"):
        Recipe.parse("inf_llm() + snapkv(budget=0.5)")
