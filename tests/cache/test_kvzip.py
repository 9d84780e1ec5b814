"""KVzip against its equation, written naively, and on models: rows, turns, storages and layers that are left alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import pytest
import torch

import pith
from contracts.steps import step as made
from contracts.test_eviction_laws import all_real, cache_bytes, read_and_decode, restore
from contracts.tiny import FULL, MAKERS, tiny, tokens
from pith.attention import Step
from pith.attention.evictor import best
from pith.cache.ada_kv import AdaKV
from pith.cache.kvzip import KVzip, reconstruction, shares
from pith.core import DenseCache, ParameterError, PithWarning, Recipe


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        yield


def naive(s: Step, row: int, head: int, columns: list[int], new: int) -> list[float]:
    """The most that any query of the pass gives each column, with loops over queries and heads."""
    group, stored = s.query.shape[1] // s.keys.shape[1], s.stored
    found = [0.0] * len(columns)
    for h in range(head * group, head * group + group):
        for i in range(new):
            if s.positions[row, 0, stored - new + i] < 0:
                continue
            own = [j for j in range(stored - new, stored - new + i + 1) if s.positions[row, 0, j] >= 0]
            logits = [float(s.query[row, h, i] @ s.keys[row, head, j]) / math.sqrt(8) for j in columns + own]
            total = sum(math.exp(x) for x in logits)
            for c in range(len(columns)):
                found[c] = max(found[c], math.exp(logits[c]) / total)
    return found


@pytest.mark.parametrize(("query_heads", "kv_heads"), [(2, 2), (4, 2)])
@pytest.mark.parametrize("new", [1, 7])
def test_scores_are_the_papers(query_heads: int, kv_heads: int, new: int) -> None:
    torch.manual_seed(0)
    query, keys = torch.randn(2, query_heads, new, 8), torch.randn(2, kv_heads, 19 + new, 8)
    positions = torch.arange(19 + new, dtype=torch.int32).expand(2, 1, -1).clone()
    if new > 1:
        positions[1, 0, [0, 1, 2, 19, 20]] = -1  # the second row is shorter, and so is its pass
    s = made(query, keys, None, positions)
    columns = torch.tensor([[0, 1, 9, 10, 11, 12, 13], [3, 4, 12, 13, 14, -1, -1]])
    found = reconstruction(s, columns)
    for row in range(2):
        own = [int(c) for c in columns[row] if c >= 0]
        for head in range(kv_heads):
            assert found[row, head, : len(own)].tolist() == pytest.approx(naive(s, row, head, own, new), abs=1e-6)
            assert found[row, head, len(own) :].eq(0).all()


def passes(method: KVzip, model, prompt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scores of one row [layer, kv_head, token], by plain forwards of the model, and its length."""
    length, layers = prompt.shape[1], model.model.layers
    seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def attention(module, query, key, value, mask, scaling=None, dropout=0.0, **more):
        seen[module.layer_idx] = (query, key)
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        new, stored = query.shape[2], key.shape[2]
        causal = torch.arange(stored)[None, :] <= torch.arange(stored - new, stored)[:, None]
        weights = (query @ key.transpose(-1, -2) * scaling).masked_fill(~causal, -torch.inf).softmax(-1)
        return (weights @ value).transpose(1, 2), None

    from transformers import AttentionInterface

    AttentionInterface.register("kvzip_naive", attention)
    model.set_attn_implementation("kvzip_naive")
    kv_heads = model.config.num_key_value_heads
    scores = torch.zeros(len(layers), kv_heads, length)
    scores[..., : method.sink] = torch.inf
    for start in range(method.sink, length, method.chunk_size):
        end = min(start + method.chunk_size, length)
        first = max(start - method.overlap, 0) if start > method.sink else start
        ids = [int(word) for word in method.instruction.split()]
        again = torch.cat([prompt, torch.tensor([ids], dtype=torch.long), prompt[:, first:end]], dim=1)
        model(again)  # without a cache: the whole text, then the chunk, is the same as going on behind a cache
        new = again.shape[1] - length
        for index, (query, key) in seen.items():
            columns = [*range(method.sink), *range(start, end)]
            s = made(query[:, :, -new:], key)
            for head in range(kv_heads):
                group = query.shape[1] // kv_heads
                for h in range(head * group, head * group + group):
                    logits = (s.query[0, h] @ s.keys[0, head].T) / math.sqrt(query.shape[-1])
                    own = torch.arange(new)[None, :] <= torch.arange(new)[:, None]
                    logits[:, length:] = logits[:, length:].masked_fill(~own, -torch.inf)
                    weights = logits[:, [*columns, *range(length, length + new)]].softmax(-1)
                    chunk = weights[:, method.sink : len(columns)].amax(0)
                    scores[index, head, start:end] = torch.maximum(scores[index, head, start:end], chunk)
    restore(model)
    return scores, torch.tensor(length)


@pytest.mark.parametrize("name", ["llama_mha", "llama_gqa"])
@pytest.mark.parametrize("instruction", ["", "5 3 88"])
def test_a_model_keeps_what_its_passes_look_at(name: str, instruction: str) -> None:
    model, prompt = tiny(name), tokens(1, 67)
    method = KVzip(budget=0.3, chunk_size=25, overlap=4, sink=3, instruction=instruction)
    scores, _ = passes(method, model, prompt)
    expected = scores.flatten().argsort(descending=True)[: 20 * scores.shape[0] * scores.shape[1]]
    wanted = torch.zeros(scores.numel(), dtype=torch.bool).index_fill_(0, expected, True).view(scores.shape)
    _, cache = read_and_decode(model, Recipe([method]), prompt, all_real(prompt), prompt[:, :0])
    for index, layer in enumerate(cache.layers):
        for head, positions in enumerate(layer.store.positions[0]):
            assert positions[positions >= 0].tolist() == wanted[index, head].nonzero()[:, 0].tolist()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("text", ["kvzip(budget=1.0)", "kvzip(budget=4096)"])
def test_room_for_everything_is_the_dense_model(name: str, text: str) -> None:
    model, prompt, decoded = tiny(name), tokens(2, 41), tokens(2, 7, seed=1)
    dense, _ = read_and_decode(model, None, prompt, all_real(prompt), decoded)
    kept, _ = read_and_decode(model, Recipe.parse(text), prompt, all_real(prompt), decoded)
    assert (kept - dense).abs().max() < 1e-5


@pytest.mark.parametrize("name", MAKERS)
def test_passes_leave_no_trace(name: str) -> None:
    """All that is dropped are pairs: with a budget one pair short, what comes later is nearly the dense model's."""
    model, prompt, decoded = tiny(name), tokens(1, 41), tokens(1, 7, seed=1)
    dense, _ = read_and_decode(model, Recipe(), prompt, all_real(prompt), decoded)
    kept, cache = read_and_decode(
        model, Recipe.parse("kvzip(budget=40, chunk_size=16)"), prompt, all_real(prompt), decoded
    )
    assert (kept[:, 0] - dense[:, 0]).abs().max() < 1e-5
    assert cache.get_seq_length() == 48
    assert (kept[:, 1:] - dense[:, 1:]).abs().max() < 0.3 * dense.abs().max()
    assert not getattr(cache, "unwatched", False)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("budget", ["0.3", "16"])
@pytest.mark.parametrize("uniform", ["True", "False"])
def test_a_padded_row_gives_what_it_gives_alone(name: str, budget: str, uniform: str) -> None:
    model = tiny(name)
    recipe = Recipe.parse(f"kvzip(budget={budget}, chunk_size=16, overlap=4, uniform={uniform}, instruction='5 6')")
    decoded, rows = tokens(3, 5, seed=1), [tokens(1, n, seed=n) for n in (45, 29, 9)]
    longest = max(r.shape[1] for r in rows)
    prompt = torch.cat([torch.nn.functional.pad(r, (longest - r.shape[1], 0)) for r in rows])
    mask = torch.cat([torch.nn.functional.pad(all_real(r), (longest - r.shape[1], 0)) for r in rows])
    together, cache = read_and_decode(model, recipe, prompt, mask, decoded)
    for i, row in enumerate(rows):
        alone, own = read_and_decode(model, recipe, row, all_real(row), decoded[i : i + 1])
        assert (together[i] - alone[0]).abs().max() < 1e-3
        for mine, theirs in zip(cache.served(), own.served(), strict=True):
            alike = theirs.store.positions[0].expand(mine.store.positions.shape[1], -1)
            for heads, kept in zip(mine.store.positions[i], alike, strict=True):
                assert heads[heads >= 0].tolist() == kept[kept >= 0].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("uniform", [True, False])
def test_bytes_are_what_the_budget_says(name: str, dtype: torch.dtype, uniform: bool) -> None:
    model, prompt = tiny(name, dtype), tokens(1, 301)
    _, dense = read_and_decode(model, Recipe(), prompt, all_real(prompt), prompt[:, :0])
    recipe = Recipe([KVzip(budget=0.2, chunk_size=100, uniform=uniform)])
    _, cache = read_and_decode(model, recipe, prompt, all_real(prompt), prompt[:, :0])
    held = [(layer.store.positions >= 0).sum(dim=-1) for layer in cache.layers]
    assert sum(int(heads.sum()) for heads in held) == 60 * sum(heads.numel() for heads in held)
    heads = torch.cat([h[0] for h in held])
    assert (len(heads.unique()) == 1) == uniform
    whole = cache_bytes(dense) - sum(layer.store.positions.nbytes for layer in dense.layers)
    # a position takes 4 bytes, where heads keep their own one a pair
    positions = 4 * int(heads.sum())
    assert cache_bytes(cache) - positions == pytest.approx(whole * 60 / 301, rel=1e-6)
    assert recipe.methods[0].claimed(DenseCache(tokens=301)) == pytest.approx(60 / 301)


@pytest.mark.parametrize("sink", [0, 1, 4, 8])
@pytest.mark.parametrize("uniform", [True, False])
def test_prompts_about_as_long_as_the_sink(sink: int, uniform: bool) -> None:
    model = tiny("llama_gqa")
    for length in range(1, 8):
        prompt, decoded = tokens(1, length, seed=length), tokens(1, 3, seed=9)
        dense, _ = read_and_decode(model, Recipe(), prompt, all_real(prompt), decoded)
        for budget in (0.1, 0.5, 0.9, 1, 2, 3, 5, 50):
            recipe = Recipe([KVzip(budget=budget, sink=sink, uniform=uniform)])
            _, cache = read_and_decode(model, recipe, prompt, all_real(prompt), decoded[:, :0])
            given = budget if isinstance(budget, int) else max(1, int(length * budget + 1e-6))
            kept, always = min(given, length), min(given, length, sink)
            held = [layer.store.positions[0].expand(2, -1) for layer in cache.served()]
            assert sum(int((p >= 0).sum()) for p in held) == kept * 2 * len(held)
            for heads in held:
                assert all(set(range(always)) <= set(head.tolist()) for head in heads)
            logits, _ = read_and_decode(model, recipe, prompt, all_real(prompt), decoded)
            assert logits.isfinite().all()
            if kept == length:
                assert (logits - dense).abs().max() < 1e-4


@pytest.mark.parametrize("budget", [0.1, 0.5, 1, 2, 3, 6])
@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("lengths", [(1, 2, 3, 4, 5, 6), (2, 30, 1)])
def test_short_rows_of_a_padded_batch(budget: float, uniform: bool, lengths: tuple[int, ...]) -> None:
    model, recipe = tiny("llama_gqa"), Recipe([KVzip(budget=budget, uniform=uniform, chunk_size=8)])
    rows, decoded = [tokens(1, n, seed=n) for n in lengths], tokens(len(lengths), 3, seed=1)
    missing = [max(lengths) - n for n in lengths]
    prompt = torch.cat([torch.nn.functional.pad(r, (m, 0)) for r, m in zip(rows, missing, strict=True)])
    mask = torch.cat([torch.nn.functional.pad(all_real(r), (m, 0)) for r, m in zip(rows, missing, strict=True)])
    together, _ = read_and_decode(model, recipe, prompt, mask, decoded)
    for i, row in enumerate(rows):
        alone, _ = read_and_decode(model, recipe, row, all_real(row), decoded[i : i + 1])
        assert (together[i] - alone[0]).abs().max() < 1e-4


def test_bytes_as_a_budget() -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 301)
    _, cache = read_and_decode(model, Recipe.parse("kvzip(budget='32KiB')"), prompt, all_real(prompt), prompt[:, :0])
    assert 0.97 * 32768 < cache_bytes(cache) <= 32768


def test_later_turns_are_kept() -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 100)
    cache = Recipe.parse("kvzip(budget=0.2, uniform=True, chunk_size=40)").cache(model)
    for chunk, held in ((prompt, 20), (tokens(1, 30, seed=1), 50), (tokens(1, 1, seed=2), 51), (prompt, 151)):
        model(chunk, past_key_values=cache)
        assert [layer.store.length for layer in cache.layers] == [held, held]
    assert cache.get_seq_length() == 231
    cache.reset()  # a new text has a first prompt too
    model(prompt, past_key_values=cache)
    restore(model)
    assert [layer.store.length for layer in cache.layers] == [20, 20]


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}, {"prefill_chunk_size": 24}])
def test_generate(options: dict[str, int]) -> None:
    model, prompt = tiny("llama_gqa"), tokens(2, 64)
    mask = all_real(prompt)
    mask[1, :20] = 0
    with pith.applied(model, "kvzip(budget=0.5, chunk_size=20)"):
        torch.manual_seed(0)
        first = model.generate(prompt, attention_mask=mask, max_new_tokens=8, **options)
        torch.manual_seed(0)
        assert torch.equal(model.generate(prompt, attention_mask=mask, max_new_tokens=8, **options), first)
    assert first.shape[1] == 72


@pytest.mark.parametrize("uniform", [True, False])
def test_a_storage_packs_what_is_kept(uniform: bool) -> None:
    model, prompt, decoded = tiny("llama_gqa"), tokens(1, 201), tokens(1, 5, seed=1)
    method = KVzip(budget=0.3, chunk_size=80, uniform=uniform)
    recipe = Recipe.parse(f"{method} + kv_cache_int8")
    _, cache = read_and_decode(model, Recipe([method]), prompt, all_real(prompt), decoded[:, :0])
    _, coded = read_and_decode(model, recipe, prompt, all_real(prompt), decoded[:, :0])
    assert cache_bytes(coded) < 0.5 * cache_bytes(cache)
    plain, _ = read_and_decode(model, Recipe([method]), prompt, all_real(prompt), decoded)
    packed, _ = read_and_decode(model, recipe, prompt, all_real(prompt), decoded)
    assert (packed - plain).abs().max() < 0.2 * plain.abs().max()


def test_the_cache_goes_when_nobody_holds_it() -> None:
    import weakref

    model = tiny("llama_gqa")
    hooks = model.get_decoder()._forward_hooks
    before = set(hooks)
    cache = Recipe.parse("kvzip(budget=0.5)").cache(model)
    model(tokens(1, 40), past_key_values=cache)
    restore(model)
    gone = weakref.ref(cache)
    assert len(set(hooks) - before) == 1
    del cache
    assert gone() is None
    assert set(hooks) <= before


def test_ties_are_broken_and_the_number_is_exact() -> None:
    scores = [torch.full((1, 2, 5), 0.5), torch.full((1, 1, 5), 0.5)]
    counts = shares(scores, torch.tensor([3]))
    assert sum(int(c.sum()) for c in counts) == 9
    positions = torch.arange(5, dtype=torch.int32).expand(1, 1, 5)
    kept = best(scores[0], positions, counts[0])
    assert int((kept >= 0).sum()) == int(counts[0].sum())


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ParameterError, match=r"instruction='5 x' is not allowed; allowed are token ids"):
        KVzip(instruction="5 x")
    with pytest.raises(ParameterError, match=r"of=kvzip\(\) is not allowed"):
        AdaKV(of=KVzip())
    with pytest.raises(ParameterError, match="holds the token 97; allowed is less than 97"):
        Recipe.parse("kvzip(instruction='3 97')").cache(tiny("llama_gqa"))
    restore(tiny("llama_gqa"))
