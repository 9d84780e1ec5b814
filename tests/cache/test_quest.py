"""Quest against its equation, written naively, and what its memory must survive."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from contracts.steps import step as made
from contracts.tiny import tiny, tokens
from pith.attention import Step
from pith.attention.reading import tokens_held
from pith.cache.quest import Quest
from pith.core import Recipe

SIZE = 4


def step(query_heads: int, kv_heads: int, length: int, empty: int = 0) -> Step:
    """A decoded token of two rows; the second begins with padding."""
    torch.manual_seed(0)
    positions = torch.arange(length, dtype=torch.int32).expand(2, 1, length).clone()
    positions[1, 0] = torch.cat([torch.full((empty,), -1), torch.arange(length - empty)])
    query, keys = torch.randn(2, query_heads, 1, 8), torch.randn(2, kv_heads, length, 8)
    return made(query, keys, None, positions, prefill=False)


def naive_bounds(s: Step, row: int, kv_head: int, group: Literal["mean", "max", "sum"]) -> list[float]:
    """u of each page before the newest, in loops over pages and channels."""
    real = [j for j in range(s.stored) if s.positions[row, 0, j] >= 0]
    pages = [real[i : i + SIZE] for i in range(0, len(real), SIZE)][:-1]
    each, out = s.query.shape[1] // s.keys.shape[1], []
    for page in pages:
        heads = []
        for g in range(each):
            query = s.query[row, kv_head * each + g, 0]
            u = 0.0
            for c in range(8):
                channel = [float(s.keys[row, kv_head, j, c]) for j in page]
                u += max(float(query[c]) * max(channel), float(query[c]) * min(channel))
            heads.append(u)
            products = [float(query @ s.keys[row, kv_head, j]) for j in page]
            assert u >= max(products) - 1e-5  # the bound is a bound
        out.append({"mean": sum(heads) / each, "max": max(heads), "sum": sum(heads)}[group])
    return out


@pytest.mark.parametrize(("query_heads", "kv_heads"), [(3, 3), (8, 2)])
@pytest.mark.parametrize("group", ["mean", "max", "sum"])
@pytest.mark.parametrize(("length", "empty"), [(23, 0), (23, 6), (24, 3), (25, 17)])
def test_the_pages_are_the_papers(
    query_heads: int, kv_heads: int, group: Literal["mean", "max", "sum"], length: int, empty: int
) -> None:
    s, method = (
        step(query_heads, kv_heads, length, empty),
        Quest(token_budget=12, page_size=SIZE, skip_layers=0, group=group),
    )
    bounds = method.bounds(s, (tokens_held(s) - 1) // SIZE)
    parts = method.select(s)
    assert parts is not None
    for row in range(2):
        real = [j for j in range(length) if s.positions[row, 0, j] >= 0]
        for head in range(kv_heads):
            expected = naive_bounds(s, row, head, group)
            assert bounds[row, head, : len(expected)].tolist() == pytest.approx(expected, abs=1e-5)
            assert bounds[row, head, len(expected) :].isinf().all()
            best = sorted(range(len(expected)), key=lambda page, u=expected: -u[page])[:2]
            read = [real[i] for i in range(len(real)) if i // SIZE in [*best, (len(real) - 1) // SIZE]]
            assert sorted(j for j in parts[0].index[row, head].tolist() if j >= 0) == read


def test_a_share_is_of_what_a_row_holds() -> None:
    s = step(4, 2, 48, empty=16)
    parts = Quest(token_budget=0.25, page_size=SIZE, skip_layers=0).select(s)
    assert parts is not None
    assert (parts[0].index >= 0).sum(dim=-1).tolist() == [[12, 12], [8, 8]]


def test_the_first_layers_and_short_texts_read_everything() -> None:
    assert Quest(token_budget=SIZE, page_size=SIZE).select(step(4, 2, 40)) is None
    assert Quest(token_budget=40, page_size=SIZE, skip_layers=0).select(step(4, 2, 40)) is None
    assert Quest(token_budget=39, page_size=SIZE, skip_layers=0).select(step(4, 2, 40)) is not None


def test_the_extremes_take_a_page_sizeth_and_room() -> None:
    cache, model = Recipe.parse("quest(skip_layers=0, token_budget=32)").cache(tiny("llama_gqa")), tiny("llama_gqa")
    with torch.no_grad():
        model(tokens(1, 320), past_key_values=cache)
        for token in tokens(1, 40, seed=1).split(1, dim=1):
            model(token, past_key_values=cache)
    model.set_attn_implementation("sdpa")
    layer = cache.layers[0]
    pair = 2 * 16 * 2 * 4  # bytes of a token's key and value in both heads
    assert layer.store.length == 360
    assert layer.reader is not None
    extremes = layer.reader.memory["extremes"]
    assert layer.reader.memory["pages"].tolist() == [[[22]]]
    assert extremes.nbytes == (320 // 16 + 16) * pair


def decode(recipe: str, parts: list[torch.Tensor], crops: dict[int, int] | None = None) -> tuple[Any, torch.Tensor]:
    """The cache, and the logits of the last tokens of each part; `crops` takes tokens back after some parts."""
    model, logits = tiny("llama_gqa"), []
    cache = Recipe.parse(recipe).cache(model)
    with torch.no_grad():
        for i, part in enumerate(parts):
            logits.append(model(part, past_key_values=cache).logits[:, -1])
            if crops and i in crops:
                cache.crop(-crops[i])
    model.set_attn_implementation("sdpa")
    return cache, torch.stack(logits, dim=1)


TIGHT = "quest(token_budget=8, page_size=4, skip_layers=0)"


def test_a_crop_within_a_page_and_a_second_turn() -> None:
    """What was noted of a page that is cut and filled anew is forgotten."""
    prompt, wrong, turn = tokens(1, 30), tokens(1, 7, seed=1), tokens(1, 9, seed=2)
    after = list(tokens(1, 12, seed=3).split(1, dim=1))
    cut = [prompt, *wrong.split(1, dim=1), turn, *after]
    _, cropped = decode(TIGHT, cut, crops={7: 7})
    _, straight = decode(TIGHT, [prompt, turn, *after])
    assert (cropped[:, 8:] - straight[:, 1:]).abs().max() < 1e-5


def test_an_eviction_before_it_empties_the_memory() -> None:
    """The bounds after the second turn's eviction are those of what is stored then."""
    recipe = f"snapkv(budget=0.5, window=8) + {TIGHT}"
    parts = [tokens(1, 40), *tokens(1, 9, seed=1).split(1, dim=1), tokens(1, 20, seed=2), tokens(1, 1, seed=3)]
    cache, _ = decode(recipe, parts)
    for layer in cache.layers:
        assert layer.reader is not None
        older = (layer.store.length - 1) // SIZE
        keys = layer.store.keys[:, :, : older * SIZE].unflatten(2, (older, SIZE))
        expected = torch.cat([keys.amax(dim=3), keys.amin(dim=3)], dim=-1)
        assert torch.equal(layer.reader.memory["extremes"][:, :, :older], expected)


def test_eight_bits_under_it() -> None:
    parts = [tokens(1, 40), *tokens(1, 9, seed=1).split(1, dim=1)]
    cache, mine = decode(f"kv_cache_int8 + {TIGHT}", parts)
    _, exact = decode(TIGHT, parts)
    _, dense = decode("dense", parts)
    assert (mine - exact).abs().mean() < 0.3 * (exact - dense).abs().mean()
    layer = cache.layers[0]
    decoded = layer.store.keys[:, :, :48].unflatten(2, (12, SIZE))
    assert torch.equal(layer.reader.memory["extremes"][:, :, :12, :16], decoded.amax(dim=3))
