"""Ada-KV against its equation, written naively, and what its heads hold in a model."""

from __future__ import annotations

import pytest
import torch

from cache.test_snapkv import step
from contracts.test_eviction_laws import all_real, cache_bytes, read_and_decode
from contracts.tiny import tiny, tokens
from pith.attention.evictor import best
from pith.cache.ada_kv import AdaKV
from pith.cache.h2o import H2O
from pith.cache.snapkv import SnapKV
from pith.core import ParameterError, Recipe

INF = float("inf")


def naive(scores: list[list[float]], limit: int, floor_alpha: float) -> list[int]:
    """How many pairs each head of one row keeps; -inf is no pair, inf one that is always kept."""
    window = min(sum(x == INF for x in scores[0]), limit)
    budget = limit - window
    if sum(x != -INF for head in scores for x in head) <= limit * len(scores):
        return [sum(x != -INF for x in head) for head in scores]
    all_of_them = sorted(((x, h) for h, head in enumerate(scores) for x in head if x != INF), reverse=True)
    winners = [h for _, h in all_of_them[: budget * len(scores)]]
    floor = int(budget * floor_alpha)
    return [round(winners.count(h) * (1 - floor_alpha) + floor) + window for h in range(len(scores))]


@pytest.mark.parametrize("floor_alpha", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize(("query_heads", "kv_heads"), [(3, 3), (8, 2)])
@pytest.mark.parametrize("limit", [2, 9, 14, 20])
def test_heads_keep_what_the_equation_says(query_heads: int, kv_heads: int, floor_alpha: float, limit: int) -> None:
    s = step(query_heads, kv_heads, 23, empty=6)
    method = AdaKV(of=SnapKV(window=4, kernel=3), floor_alpha=floor_alpha)
    scores = method.score(s).masked_fill(~s.real, -INF)
    counts = method.split(scores, torch.tensor([limit, limit]))
    for row in range(2):
        assert counts[row].tolist() == naive(scores[row].tolist(), limit, floor_alpha)


def test_the_uniform_end_is_the_other_method_and_the_adaptive_end_keeps_the_best_of_all_heads() -> None:
    s, limit = step(4, 4, 40), torch.tensor([12, 12])
    scores = SnapKV(window=4).score(s)
    assert (AdaKV(of=SnapKV(window=4), floor_alpha=1.0).split(scores, limit) == 12).all()
    counts = AdaKV(of=SnapKV(window=4), floor_alpha=0.0).split(scores, limit)
    assert counts.sum(dim=-1).tolist() == [48, 48]
    kept = best(scores, s.positions, counts)
    worst_kept = min(scores[0, h, j].item() for h in range(4) for j in kept[0, h].tolist() if j >= 0)
    dropped = [scores[0, h, j].item() for h in range(4) for j in range(40) if j not in kept[0, h].tolist()]
    assert max(dropped) <= worst_kept


def test_a_window_longer_than_the_budget_is_cut() -> None:
    s = step(4, 2, 20)
    counts = AdaKV().split(SnapKV(window=8).score(s), torch.tensor([5, 5]))
    assert (counts == 5).all()


@pytest.mark.parametrize("name", ["llama_mha", "llama_gqa", "gpt_neox"])
def test_bytes_are_the_budgets_and_heads_differ(name: str) -> None:
    model, prompt = tiny(name), tokens(1, 1000)
    held = {}
    for text in ("ada_kv(snapkv(budget=0.25))", "ada_kv(snapkv(budget=0.25), floor_alpha=1.0)"):
        _, cache = read_and_decode(model, Recipe.parse(text), prompt, all_real(prompt), prompt[:, :0])
        held[text] = cache_bytes(cache)
    adaptive, uniform = held.values()
    assert adaptive == pytest.approx(uniform, rel=0.02)
    _, cache = read_and_decode(
        model, Recipe.parse("ada_kv(snapkv(budget=0.25))"), prompt, all_real(prompt), prompt[:, :0]
    )
    counts = (cache.layers[1].store.positions >= 0).sum(dim=-1)[0]
    assert counts.sum() == pytest.approx(250 * len(counts), abs=len(counts))
    assert counts.max() > counts.min()


def test_a_padded_row_gives_what_it_gives_alone() -> None:
    model, recipe = tiny("llama_gqa"), Recipe.parse("ada_kv(snapkv(budget=0.3, window=4))")
    rows, decoded = [tokens(1, n, seed=n) for n in (61, 37, 9)], tokens(3, 5, seed=1)
    prompt = torch.cat([torch.nn.functional.pad(r, (61 - r.shape[1], 0)) for r in rows])
    mask = torch.cat([torch.nn.functional.pad(all_real(r), (61 - r.shape[1], 0)) for r in rows])
    with torch.no_grad():
        together, _ = read_and_decode(model, recipe, prompt, mask, decoded)
        for i, row in enumerate(rows):
            alone, _ = read_and_decode(model, recipe, row, all_real(row), decoded[i : i + 1])
            assert (together[i] - alone[0]).abs().max() < 1e-4


@pytest.mark.parametrize("of", [SnapKV(budget=0.4, window=4), H2O(budget=0.4)])
def test_several_turns(of: SnapKV | H2O) -> None:
    """Each turn divides the budget of everything seen anew, between decoded tokens as between those of prompts."""
    model = tiny("llama_gqa")
    cache = Recipe([AdaKV(of=of)]).cache(model)
    with torch.no_grad():
        for seed, count in enumerate((50, 1, 1, 30, 1, 20)):
            logits = model(tokens(1, count, seed=seed), past_key_values=cache).logits
            assert torch.isfinite(logits).all()
            for layer in cache.layers:
                positions = layer.store.positions[0]
                real = [p[p >= 0] for p in positions]
                assert all((p.diff() > 0).all() for p in real)
                if isinstance(of, H2O):  # the sums stay with their pairs
                    assert ((layer.store.carried > 0) == (layer.store.positions >= 0)).all()
                assert all(p[-1] == cache.get_seq_length() - 1 for p in real)
                if count > 1:
                    assert sum(map(len, real)) == pytest.approx(2 * int(0.4 * cache.get_seq_length()), abs=2)
    model.set_attn_implementation("sdpa")


def test_what_it_takes() -> None:
    with pytest.raises(ParameterError, match=r"floor_alpha=1\.5 is not allowed; allowed is"):
        AdaKV(floor_alpha=1.5)
    assert str(Recipe([AdaKV(of=SnapKV(budget=0.25))])) == "ada_kv(snapkv(budget=0.25))"
