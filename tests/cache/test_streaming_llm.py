"""StreamingLLM against its definition: raw keys, rotated at their index in the cache at every step."""

from __future__ import annotations

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from contracts.tiny import tiny, tokens
from pith.core import ModelError, Recipe


@pytest.fixture(params=["llama_mha", "llama_gqa"])
def model(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    found = tiny(request.param)
    yield found
    found.set_attn_implementation("sdpa")


@torch.no_grad()
def naive_stream(model, ids: torch.Tensor, sinks: int, recent: int, chunks: list[int]) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """The paper's loop, token by token of the text, with no cache class at all; logits of each forward's last token."""
    cached = [[] for _ in model.model.layers]
    logits, begin = [], 0
    for size in chunks:
        hidden = model.model.embed_tokens(ids[:, begin : begin + size])
        begin += size
        for layer, memory in zip(model.model.layers, cached, strict=True):
            attention, normed = layer.self_attn, layer.input_layernorm(hidden)
            shape = (1, size, -1, attention.head_dim)
            query = attention.q_proj(normed).view(shape).transpose(1, 2)
            memory += zip(
                attention.k_proj(normed).view(shape).unbind(1),
                attention.v_proj(normed).view(shape).unbind(1),
                strict=True,
            )
            keys, values = (torch.stack(parts, dim=2) for parts in zip(*memory, strict=True))
            count = len(memory)
            cos, sin = model.model.rotary_emb(hidden, torch.arange(count)[None])
            keys = apply_rotary_pos_emb(keys, keys, cos, sin)[0]
            query = apply_rotary_pos_emb(query, query, cos[:, -size:], sin[:, -size:])[0]
            keys, values = (repeat_kv(x, attention.num_key_value_groups) for x in (keys, values))
            weights = query @ keys.transpose(-1, -2) * attention.scaling
            weights = weights.masked_fill(torch.ones(size, count).tril(count - size) == 0, float("-inf")).softmax(-1)
            hidden = hidden + attention.o_proj((weights @ values).transpose(1, 2).reshape(1, size, -1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
            if count > sinks + recent:
                memory[sinks : count - recent] = []
        logits.append(model.lm_head(model.model.norm(hidden))[:, -1])
    return torch.stack(logits, dim=1)


@torch.no_grad()
@pytest.mark.parametrize("sinks", [0, 4])
@pytest.mark.parametrize(
    "chunks", [[1] * 60, [30, *[1] * 40], [12, *[1] * 9, 7, *[1] * 20]], ids=["one", "long", "turns"]
)
def test_logits_are_those_of_the_definition(model, sinks: int, chunks: list[int]) -> None:  # type: ignore[no-untyped-def]
    ids = tokens(1, sum(chunks))
    expected = naive_stream(model, ids, sinks, 16 - sinks, chunks)
    cache = Recipe.parse(f"streaming_llm(budget=16, start_size={sinks})").cache(model)
    got = torch.stack([model(part, past_key_values=cache).logits[:, -1] for part in ids.split(chunks, dim=1)], dim=1)
    assert (got - expected).abs().max() < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 16, 17, 48])
def test_what_is_kept(model, steps: int) -> None:  # type: ignore[no-untyped-def]
    ids = tokens(1, steps)
    cache = Recipe.parse("streaming_llm(budget=16)").cache(model)
    for token in ids.split(1, dim=1):
        model(token, past_key_values=cache)
    expected = list(range(steps)) if steps <= 16 else [0, 1, 2, 3, *range(steps - 12, steps)]
    assert cache.layers[0].store.positions[0, 0].tolist() == expected


@torch.no_grad()
def test_rounding_does_not_add_up() -> None:
    """In half precision a key that was placed a hundred times is as exact as one that was placed once."""
    model, ids = tiny("llama_gqa", torch.bfloat16), tokens(1, 120)
    cache = Recipe.parse("streaming_llm(budget=16)").cache(model)
    model(ids[:, :20], past_key_values=cache)
    once = cache.layers[0].evictor.placement.raw.clone()
    for token in ids[:, 20:].split(1, dim=1):
        model(token, past_key_values=cache)
    model.set_attn_implementation("sdpa")
    assert torch.equal(cache.layers[0].evictor.placement.raw, once)


def test_frequencies_that_depend_on_the_length_are_refused() -> None:
    import transformers as hf

    from contracts.tiny import COMMON

    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON, rope_parameters=rope))
    with pytest.raises(ModelError, match="'dynamic' frequencies"):
        Recipe.parse("streaming_llm").cache(model)
