"""What carries readings out: parts against a softmax written naively, and the laws that every reading keeps by it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from contracts.steps import step as made
from contracts.tiny import tiny, tokens
from pith.attention import LayerCache, Part, Reading, Step, Store
from pith.attention.answers import Answers
from pith.attention.call import Call
from pith.attention.reader import Reader
from pith.attention.reading import slots_of, tokens_held
from pith.core import PithWarning, Recipe

TIGHT = [
    "quest(token_budget=8, page_size=4, skip_layers=0)",
    "quest(token_budget=0.25, page_size=4, skip_layers=0, group='mean')",
    "recycled_attention(k=6, stride=4)",
    "recycled_attention(k=6, s=0.3, interval=2)",
    "token_select(n_init=2, k=4, n_local=8, chunk=8)",
    "token_select(n_init=0, k=7, n_local=5, chunk=3, theta=0.0, kernel_size=3)",
]
"""Readings that leave most of a short text out."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        yield


@dataclass(frozen=True, kw_only=True)
class Given(Reading):
    """Reads the parts that it is made with, and keeps the weights."""

    parts: tuple[Any, ...] = ()
    told: tuple[list[Any], ...] = ()

    def __post_init__(self) -> None:
        """These are no parameters."""

    def select(self, step: Step) -> Sequence[Part] | None:
        return self.parts

    def observe(self, step: Step, parts: Sequence[Part], weights: Sequence[torch.Tensor]) -> None:
        for told in self.told:
            told.append(weights)


def call(**more: Any) -> Call:
    return Call(
        torch.nn.Identity(),
        **{"mask": None, "positions": None, "scaling": None, "softcap": None, "sinks": None, "dropout": 0.0} | more,
    )


def naive(
    s: Step, parts: Sequence[Part], softcap: float | None = None, sinks: torch.Tensor | None = None
) -> torch.Tensor:
    """One softmax over all parts; loops over rows, heads and queries."""
    batch, heads, count, dim = s.query.shape
    out = torch.zeros(batch, heads, count, s.values.shape[-1])
    for b in range(batch):
        for h in range(heads):
            kv = h // (heads // s.kv_head)
            for i in range(count):
                asks, read = s.stored - count + i, []
                for part in parts:
                    lists = part.index[b] if part.index.ndim == 3 else part.index[b, :, i]
                    mine = lists[h * len(lists) // heads].tolist()
                    near, far = part.window or s.stored + 1, part.beyond or 0
                    read += [j for j in mine if 0 <= j <= asks and far <= asks - j < near]
                read = [j for j in read if s.positions[b, 0, j] >= 0] or [asks]
                logits = s.query[b, h, i] @ s.keys[b, kv, read].T / dim**0.5
                logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
                more = logits if sinks is None else torch.cat([logits, sinks[h : h + 1]])
                out[b, h, i] = more.softmax(dim=0)[: len(read)] @ s.values[b, kv, read]
    return out


def step(count: int, empty: int = 0) -> Step:
    torch.manual_seed(0)
    positions = torch.arange(20, dtype=torch.int32).expand(2, 1, 20).clone()
    positions[1, 0] = torch.cat([torch.full((empty,), -1), torch.arange(20 - empty)])
    query, keys = torch.randn(2, 4, count, 8), torch.randn(2, 2, 20, 8)
    return made(query, keys, torch.randn(2, 2, 20, 6), positions, prefill=count > 1)


def some(heads: int, among: range, read: int, query: int | None = None) -> torch.Tensor:
    """Different slots for each row and head (and query), and a negative one for none."""
    shape = (2, heads) if query is None else (2, heads, query)
    picked = torch.rand(*shape, len(among)).argsort(dim=-1)[..., :read] + among.start
    return F.pad(picked, (0, 1), value=-1)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("empty", [0, 7])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("extras", [{}, {"softcap": 2.0}, {"sinks": torch.tensor([0.5, -1.0, 2.0, 0.0])}])
def test_parts_are_one_softmax(heads: int, empty: int, count: int, extras: dict[str, Any]) -> None:
    s = step(count, empty)
    own = torch.arange(20 - count, 20).expand(2, heads, -1)
    one = [Part(torch.cat([some(heads, range(17), 6), own], dim=-1))]
    two = [
        Part(torch.cat([some(1, range(10, 17), 5), own[:, :1]], dim=-1), window=4),
        Part(some(heads, range(10), 5), beyond=9),
    ]
    each = [Part(own), Part(some(heads, range(17), 5, query=count))]
    for parts in (one, two, each):
        for told in ((), ([],)):
            got = Reader(Given(parts=tuple(parts), told=told)).read(call(**extras), s)
            assert got is not None
            real = s.real[:, 0, 20 - count :, None].unsqueeze(1)
            assert torch.allclose(got * real, naive(s, parts, **extras) * real, atol=1e-5)
            for weights in told[0] if told else ():
                total = sum(w.sum(dim=-1) for w in weights)
                assert (total <= 1 + 1e-5).all()
                assert "sinks" in extras or torch.allclose(total, torch.ones_like(total))


def test_slots_count_the_tokens_of_a_row() -> None:
    s = step(1, empty=7)
    assert tokens_held(s).tolist() == [[[20]], [[13]]]
    ranks = torch.tensor([[[0, 5, 19, 20, -1]], [[0, 5, 12, 13, -1]]])
    assert slots_of(s, ranks).tolist() == [[[0, 5, 19, -1, -1]], [[7, 12, 19, -1, -1]]]


def logits(model: Any, recipe: str, prompt: torch.Tensor, mask: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """After the prompt and after each decoded token, [batch, 1 + decoded, vocabulary]."""
    cache, outs, before = Recipe.parse(recipe).cache(model), [], model.config._attn_implementation
    for new in (prompt, *decoded.split(1, dim=1)):
        if new is not prompt:
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -new.shape[1] :]
        outs.append(model(new, attention_mask=mask, position_ids=positions, past_key_values=cache).logits[:, -1])
    model.set_attn_implementation("eager" if "GptOss" in type(model).__name__ else "sdpa")
    assert before == "pith"
    return torch.stack(outs, dim=1)


@pytest.mark.parametrize("recipe", TIGHT)
@pytest.mark.parametrize("name", ["llama_mha", "llama_gqa", "gemma3", "gpt_oss", "gpt_neox", "qwen3_next"])
def test_a_padded_row_gives_what_it_gives_alone(name: str, recipe: str) -> None:
    model, decoded = tiny(name), tokens(3, 9, seed=1)
    rows = [tokens(1, n, seed=n) for n in (45, 29, 9)]
    prompt = torch.cat([F.pad(r, (45 - r.shape[1], 0)) for r in rows])
    mask = torch.cat([F.pad(torch.ones_like(r), (45 - r.shape[1], 0)) for r in rows])
    together = logits(model, recipe, prompt, mask, decoded)
    dense = logits(model, "dense", prompt, mask, decoded)
    assert (together - dense)[0].abs().max() > 1e-3
    for i, row in enumerate(rows):
        alone = logits(model, recipe, row, torch.ones_like(row), decoded[i : i + 1])
        assert (together[i] - alone[0]).abs().max() < 2e-4


@pytest.mark.parametrize("recipe", TIGHT)
def test_rows_that_are_chosen_anew_take_their_memory_along(recipe: str) -> None:
    model, prompt, decoded = tiny("llama_gqa"), tokens(3, 41), tokens(3, 8, seed=1)
    expected = logits(model, recipe, prompt, torch.ones_like(prompt), decoded)
    cache, order = Recipe.parse(recipe).cache(model), torch.tensor([2, 0, 0])
    model(prompt, past_key_values=cache)
    for token in decoded[:, :4].split(1, dim=1):
        model(token, past_key_values=cache)
    cache.reorder_cache(order)
    for i in range(4, 8):
        got = model(decoded[order, i : i + 1], past_key_values=cache).logits[:, -1]
        assert (got - expected[order, i + 1]).abs().max() < 1e-4
    model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("recipe", TIGHT)
def test_pairs_in_main_memory_are_read_alike(recipe: str) -> None:
    """As with `offload="cpu"` on a model that is elsewhere: the store knows a device of its own."""
    model, prompt, decoded = tiny("llama_gqa"), tokens(2, 41), tokens(2, 6, seed=1)
    expected = logits(model, recipe, prompt, torch.ones_like(prompt), decoded)
    cache = Recipe.parse(recipe).cache(model)
    for i, layer in enumerate(cache.layers):
        answers = Answers(
            storage=None,
            reader=layer.reader,
            rotary=layer.answers.rotary,
            raw=layer.answers.raw,
            device=torch.device("cpu"),
        )
        cache.layers[i] = LayerCache(layer.index, layer.depth, layer.group, answers)
        assert not cache.layers[i].store.plain
    for i, new in enumerate([prompt, *decoded.split(1, dim=1)]):
        assert (model(new, past_key_values=cache).logits[:, -1] - expected[:, i]).abs().max() < 1e-4
    model.set_attn_implementation("sdpa")


def test_a_store_in_main_memory_answers_alike() -> None:
    keys, query = torch.randn(2, 2, 9, 8), torch.randn(2, 2, 3, 8)
    here, there = Store(), Store(device=torch.device("cpu"))
    for store in (here, there):
        store.append(keys, keys + 1, torch.arange(9, dtype=torch.int32).expand(2, 1, -1), decoding=False)
    index = torch.tensor([[[3, 1]], [[8, 0]]])
    assert here.plain
    assert not there.plain
    assert torch.equal(here.dot(query), there.dot(query))
    assert torch.equal(here.mix(here.dot(query)), there.mix(there.dot(query)))
    for mine, theirs in zip(here.gather(index), there.gather(index), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("recipe", TIGHT)
def test_crop_and_a_second_turn(recipe: str) -> None:
    """What was taken back leaves no trace: memory is rebuilt from what is stored."""
    model, prompt, decoded = tiny("llama_gqa"), tokens(1, 41), tokens(1, 6, seed=1)
    cache = Recipe.parse(recipe).cache(model)
    model(prompt, past_key_values=cache)
    for token in decoded.split(1, dim=1):
        model(token, past_key_values=cache)
    cache.crop(-6)
    assert cache.get_seq_length() == 41
    assert not cache.layers[-1].reader.memory
    for new in (tokens(1, 17, seed=2), *decoded.split(1, dim=1)):
        assert torch.isfinite(model(new, past_key_values=cache).logits).all()
    model.set_attn_implementation("sdpa")
    assert cache.layers[0].store.positions[0, 0].tolist() == list(range(64))


@pytest.mark.parametrize("recipe", TIGHT)
def test_bfloat16(recipe: str) -> None:
    model, prompt, decoded = tiny("llama_gqa", torch.bfloat16), tokens(2, 41), tokens(2, 6, seed=1)
    got = logits(model, recipe, prompt, torch.ones_like(prompt), decoded)
    assert got.dtype == torch.bfloat16
    assert torch.isfinite(got).all()
