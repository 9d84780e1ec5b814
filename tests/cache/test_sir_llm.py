"""SirLLM against its definition: surprisals of the model's own logits, raw keys rotated at their index in the cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import transformers as hf
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from contracts.tiny import COMMON, tiny, tokens
from pith.attention.evictor import best
from pith.cache.ada_kv import AdaKV
from pith.cache.sir_llm import SirLLM, surprisals
from pith.core import InputError, ParameterError, Recipe
from pith.measure import cache_bytes


@pytest.fixture(params=["llama_mha", "llama_gqa"])
def model(request: pytest.FixtureRequest) -> Iterator[hf.PreTrainedModel]:
    found = tiny(request.param)
    with torch.no_grad():
        yield found
    found.set_attn_implementation("sdpa")


def naive_kept(surprisal: list[float], limit: int, start: int, recent: int) -> list[int]:
    """The rule, token by token."""
    by_surprisal = sorted(range(len(surprisal)), key=lambda i: -surprisal[i])
    kept = set(by_surprisal[: max(limit - start - recent, 0)]) | set(range(min(start, limit)))
    for newest in range(len(surprisal) - 1, -1, -1):
        if len(kept) < limit:
            kept.add(newest)
    return sorted(kept)


@pytest.mark.parametrize(("start", "recent"), [(4, 0), (0, 3), (2, 5), (6, 9)])
@pytest.mark.parametrize("limit", [3, 11, 23])
@pytest.mark.parametrize("empty", [0, 5])
def test_what_is_kept_is_the_papers(start: int, recent: int, limit: int, empty: int) -> None:
    torch.manual_seed(0)
    surprisal = torch.rand(2, 1, 31)
    positions = torch.arange(31).expand(2, 1, 31).clone()
    positions[1, 0] = torch.cat([torch.full((empty,), -1), torch.arange(31 - empty)])
    method, limits = SirLLM(start_size=start, recent_size=recent), torch.tensor([limit, limit - 1])
    kept = best(method.rank(surprisal, positions, limits), positions, limits)
    for row, first in ((0, 0), (1, empty)):
        expected = naive_kept(surprisal[row, 0, first:].tolist(), limit - row, start, recent)
        assert [i - first for i in kept[row, 0].tolist() if i >= 0] == expected


class Naive:
    """The paper's loop with lists for a cache: a choice before each turn, then the turn."""

    def __init__(self, model: hf.PreTrainedModel, budget: int, start: int, recent: int, decay: float) -> None:
        self.model, self.budget, self.start, self.recent, self.decay = model, budget, start, recent, decay
        self.cached: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in model.model.layers]
        self.surprisal: list[float] = []
        self.predicted: torch.Tensor | None = None

    def make_room(self, limit: int) -> None:
        if len(self.surprisal) > limit:
            kept = naive_kept(self.surprisal, limit, self.start, self.recent)
            self.cached = [[memory[i] for i in kept] for memory in self.cached]
            self.surprisal = [self.surprisal[i] for i in kept]

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        size = ids.shape[1]
        if self.budget - size >= max(self.start, 1):
            self.make_room(self.budget - size)
        if size > 1:
            self.surprisal = [e * self.decay for e in self.surprisal]
        hidden = self.model.model.embed_tokens(ids)
        for layer, memory in zip(self.model.model.layers, self.cached, strict=True):
            attention, normed = layer.self_attn, layer.input_layernorm(hidden)
            shape = (1, size, -1, attention.head_dim)
            query = attention.q_proj(normed).view(shape).transpose(1, 2)
            keys, values = (p(normed).view(shape).unbind(1) for p in (attention.k_proj, attention.v_proj))
            memory += zip(keys, values, strict=True)
            keys, values = (torch.stack(parts, dim=2) for parts in zip(*memory, strict=True))
            count = len(memory)
            cos, sin = self.model.model.rotary_emb(hidden, torch.arange(count)[None])
            keys = apply_rotary_pos_emb(keys, keys, cos, sin)[0]
            query = apply_rotary_pos_emb(query, query, cos[:, -size:], sin[:, -size:])[0]
            keys, values = (repeat_kv(x, attention.num_key_value_groups) for x in (keys, values))
            weights = query @ keys.transpose(-1, -2) * attention.scaling
            weights = weights.masked_fill(torch.ones(size, count).tril(count - size) == 0, float("-inf")).softmax(-1)
            hidden = hidden + attention.o_proj((weights @ values).transpose(1, 2).reshape(1, size, -1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        logits = self.model.lm_head(self.model.model.norm(hidden))[0]
        before = logits[:-1] if self.predicted is None else torch.cat([self.predicted[None], logits[:-1]])
        nats = -before.log_softmax(-1).gather(1, ids[0, -len(before) :, None])[:, 0]
        self.surprisal += ([float(nats.max())] if self.predicted is None else []) + nats.tolist()
        self.predicted = logits[-1]
        self.make_room(self.budget)
        return logits[-1]


@pytest.mark.parametrize(("start", "recent"), [(4, 0), (0, 5), (2, 3)])
@pytest.mark.parametrize(
    "turns", [[9, *[1] * 40], [30, *[1] * 20], [12, *[1] * 9, 7, 5, *[1] * 12], [9, 14, 13, 40, 3]],
    ids=["decoding", "long", "turns", "too long"],
)  # fmt: skip
def test_logits_are_those_of_the_definition(
    model: hf.PreTrainedModel, turns: list[int], start: int, recent: int
) -> None:
    ids, naive = tokens(1, sum(turns)), Naive(model, 16, start, recent, 0.7)
    expected = torch.stack([naive.read(part) for part in ids.split(turns, dim=1)])
    method = SirLLM(budget=16, start_size=start, recent_size=recent, decay_ratio=0.7)
    cache = Recipe([method]).cache(model)
    got = torch.cat([model(part, past_key_values=cache).logits[:, -1] for part in ids.split(turns, dim=1)])
    assert (got - expected).abs().max() < 1e-4
    assert cache.layers[0].store.carried[0, 0].tolist() == pytest.approx(naive.surprisal, abs=1e-4)


def test_padded_turns_give_what_each_row_gives_alone(model: hf.PreTrainedModel) -> None:
    turns = [(25, 11), (1, 1), (1, 1), (6, 2), (1, 1), (3, 9), (1, 1)]
    rows = [tokens(1, sum(t[i] for t in turns), seed=i) for i in range(2)]
    alone = []
    for i, row in enumerate(rows):
        cache = Recipe.parse("sir_llm(budget=16, decay_ratio=0.8)").cache(model)
        parts = row.split([t[i] for t in turns], dim=1)
        alone.append([model(part, past_key_values=cache).logits[0, -1] for part in parts])
    cache = Recipe.parse("sir_llm(budget=16, decay_ratio=0.8)").cache(model)
    mask, begins = torch.zeros(2, 0, dtype=torch.long), [0, 0]
    for index, turn in enumerate(turns):
        part, real = torch.zeros(2, max(turn), dtype=torch.long), torch.zeros(2, max(turn), dtype=torch.long)
        for i, count in enumerate(turn):
            part[i, max(turn) - count :] = rows[i][0, begins[i] : begins[i] + count]
            real[i, max(turn) - count :] = 1
            begins[i] += count
        mask = torch.cat([mask, real], dim=1)
        places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -max(turn) :]
        logits = model(part, attention_mask=mask, position_ids=places, past_key_values=cache).logits[:, -1]
        for i in range(2):
            assert (logits[i] - alone[i][index]).abs().max() < 1e-4


def test_rows_take_their_surprisals_with_them(model: hf.PreTrainedModel) -> None:
    ids, swap = tokens(2, 40), torch.tensor([1, 0])
    logits = {}
    for swaps in (False, True):
        cache = Recipe.parse("sir_llm(budget=12)").cache(model)
        model(ids[:, :20], past_key_values=cache)
        if swaps:
            cache.reorder_cache(swap)
        for token in (ids[swap] if swaps else ids)[:, 20:].split(1, dim=1):
            out = model(token, past_key_values=cache).logits[:, -1]
        logits[swaps] = out
    assert (logits[True][swap] - logits[False]).abs().max() < 1e-5


def test_an_endless_stream_runs_in_constant_memory(model: hf.PreTrainedModel) -> None:
    """Past the model's positions and far past the budget; every layer holds the same tokens, the first among them."""
    ids = tokens(1, 700)
    cache, held = Recipe.parse("sir_llm(budget=32, recent_size=8)").cache(model), []
    for token in ids.split(1, dim=1):
        logits = model(token, past_key_values=cache).logits
        held.append(cache_bytes(cache))
    assert torch.isfinite(logits).all()
    positions = [layer.store.positions[0, 0].tolist() for layer in cache.layers]
    assert positions[0] == positions[1]
    assert positions[0][:4] == [0, 1, 2, 3]
    assert positions[0][-8:] == list(range(692, 700))
    assert len(positions[0]) == 32
    assert max(held[100:]) == max(held[400:])


def test_only_turns_decay() -> None:
    model, ids = tiny("llama_gqa"), tokens(1, 40)
    cache = Recipe.parse("sir_llm(budget=64, decay_ratio=0.5)").cache(model)
    model(ids[:, :20], past_key_values=cache)
    first = cache.layers[0].store.carried.clone()
    for token in ids[:, 20:24].split(1, dim=1):
        model(token, past_key_values=cache)
    assert torch.equal(cache.layers[0].store.carried[..., :20], first)
    model(ids[:, 24:30], past_key_values=cache)
    assert torch.equal(cache.layers[0].store.carried[..., :20], first * 0.5)
    model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("kind", ["Gemma3", "Gemma2", "Cohere", "Granite", "HyperCLOVAX"])
@torch.no_grad()
def test_surprisals_are_those_of_the_models_own_logits(kind: str) -> None:
    more = {
        "Gemma3": {"final_logit_softcapping": 5.0},
        "Granite": {"logits_scaling": 4.0},
        "HyperCLOVAX": {"logits_scaling": 0.25},
    }
    config = getattr(hf, f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config")
    torch.manual_seed(0)
    made = getattr(hf, f"{kind}ForCausalLM")(
        config(**COMMON, num_key_value_heads=2, head_dim=16, **more.get(kind, {}))
    ).eval()
    made.get_output_embeddings().weight.normal_(std=3.0)
    ids = tokens(2, 19)
    expected = -made(ids).logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    hidden = made.get_decoder()(ids).last_hidden_state
    assert expected.std() > 0.05
    assert (surprisals(made, hidden[:, :-1], ids[:, 1:]) - expected).abs().max() < 1e-4


def test_tokens_are_taken_back_only_before_something_was_dropped(model: hf.PreTrainedModel) -> None:
    ids = tokens(1, 40)
    cache = Recipe.parse("sir_llm(budget=16)").cache(model)
    model(ids[:, :12], past_key_values=cache)
    cache.crop(-4)
    assert torch.isfinite(model(ids[:, 8:14], past_key_values=cache).logits).all()
    model(ids[:, 14:20], past_key_values=cache)
    with pytest.raises(InputError, match="at most 0"):
        cache.crop(-1)


def test_nothing_shares_its_scores_out() -> None:
    with pytest.raises(ParameterError, match=r"of=sir_llm\(budget=8\) is not allowed"):
        AdaKV(of=SirLLM(budget=8))


def test_rows_that_come_several_times_go_on_as_the_row_itself() -> None:
    model, prompt, more = tiny("llama_gqa"), tokens(2, 60), tokens(2, 20, seed=5)
    logits = []
    for repeats in (1, 2):
        cache = Recipe.parse("sir_llm(budget=24)").cache(model)
        with torch.no_grad():
            model(prompt, past_key_values=cache)
            cache.batch_repeat_interleave(repeats)
            model(more.repeat_interleave(repeats, dim=0), past_key_values=cache)
            last = model(more[:, :5].repeat_interleave(repeats, dim=0), past_key_values=cache).logits[:, -1]
        logits.append(last[::repeats])
    assert (logits[0] - logits[1]).abs().max() < 1e-4
