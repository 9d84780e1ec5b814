"""PyramidInfer against its definition: a loop over the model's layers without any cache."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
import transformers as hf
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

import pith
from contracts.tiny import COMMON, FULL, MAKERS, tiny, tokens
from pith.cache.pyramid_infer import PyramidInfer
from pith.core import InputError, ModelError, Recipe
from pith.measure import cache_bytes

TIGHT = PyramidInfer(
    recent_ratio=0.1,
    prefill_decay_ratio=0.5,
    prefill_decay_strategy="constant",
    min_context_length=6,
    gen_decay_strategy="constant",
    gen_decay_ratio=0.5,
    exceed_length_to_compress=5,
)
EVERYTHING = PyramidInfer(prefill_decay_ratio=1.0, gen_decay_ratio=1.0, gen_compress_ratio=1.0)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with torch.no_grad():
        yield
    for name in FULL:
        tiny(name).set_attn_implementation("sdpa")


def deep(kv_heads: int, layers: int = 5) -> hf.PreTrainedModel:
    """A Llama with layers enough for a pyramid."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(**COMMON | {"num_hidden_layers": layers}, num_key_value_heads=kv_heads, head_dim=16)
    model = hf.LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.mul_(4.0) if parameter.ndim >= 2 else parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def naive(model: hf.PreTrainedModel, ids: torch.Tensor, method: PyramidInfer) -> tuple[torch.Tensor, list[list[int]]]:
    """The last token's logits, and the positions that each layer reads."""
    hidden, places = model.model.embed_tokens(ids), list(range(ids.shape[1]))
    window, read, depth = int(len(places) * method.recent_ratio), [], len(model.model.layers)
    floor = min(method.min_context_length, len(places) - 1 - window)
    for index, layer in enumerate(model.model.layers):
        read.append(places)
        attention, normed, count = layer.self_attn, layer.input_layernorm(hidden), len(places)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        query, keys, values = (p(normed).view(1, count, -1, attention.head_dim).transpose(1, 2) for p in projections)
        query, keys = apply_rotary_pos_emb(query, keys, *model.model.rotary_emb(hidden, torch.tensor([places])))
        keys, values = (repeat_kv(x, attention.num_key_value_groups) for x in (keys, values))
        weights = query @ keys.transpose(-1, -2) * attention.scaling
        weights = weights.masked_fill(torch.ones(count, count).tril() == 0, float("-inf")).softmax(-1)
        hidden = hidden + attention.o_proj((weights @ values).transpose(1, 2).reshape(1, count, -1))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        share = method.prefill_decay_ratio
        if method.prefill_decay_strategy == "cosine":
            share += (1 - share) * (torch.cos(torch.tensor(torch.pi * index / depth)).item() + 1) / 2
        context = count - window - 1
        if index + 1 < depth and context > floor and share < 1 and int(context * share) > floor:
            rows = weights[0].mean(0)[-window - 1 :, :context]
            scores = [
                sum((1 + (method.distance_weight - 1) * i / max(window, 1)) * float(r[j]) for i, r in enumerate(rows))
                if places[j] >= method.streamingllm_sink_len else float("inf")
                for j in range(context)
            ]  # fmt: skip
            best = sorted(range(context), key=lambda j: -scores[j])[: int(context * share)]
            kept = [*sorted(best), *range(context, count)]
            places, hidden = [places[j] for j in kept], hidden[:, kept]
    return model.lm_head(model.model.norm(hidden))[0, -1], read


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("length", [7, 33, 80, 301])
@pytest.mark.parametrize("strategy", ["cosine", "constant"])
def test_the_definition(kv_heads: int, length: int, strategy: str) -> None:
    method = PyramidInfer.build(prefill_decay_strategy=strategy, prefill_decay_ratio=0.6, min_context_length=10)
    model, ids = deep(kv_heads), tokens(1, length)
    expected, read = naive(model, ids, method)
    cache = Recipe([method]).cache(model)
    logits = model(ids, past_key_values=cache).logits
    assert [layer.store.positions[0, 0].tolist() for layer in cache.layers] == read
    assert (logits[0, -1] - expected).abs().max() < 1e-4
    assert logits.shape[1] == len(read[-1])
    assert cache.get_seq_length() == length


@pytest.mark.parametrize("name", FULL)
def test_dropped_tokens_are_not_computed(name: str) -> None:
    model, ids, computed = tiny(name), tokens(2, 60), []
    layer = model.get_decoder().layers[1]
    cache = Recipe([TIGHT]).cache(model)  # a model that is new to Pith reads a few tokens here
    handle = layer.register_forward_hook(lambda module, args, out: computed.append(out.shape[1]))
    model(ids, past_key_values=cache)
    model(ids[:, :1], past_key_values=cache)
    handle.remove()
    assert computed == [int((60 - 7) * 0.5) + 7, 1]


@pytest.mark.parametrize("name", FULL)
def test_everything_is_the_dense_model(name: str) -> None:
    model, prompt = tiny(name), tokens(2, 41)
    expected = model.generate(prompt, max_new_tokens=24, do_sample=False)
    with pith.applied(model, Recipe([EVERYTHING])):
        assert torch.equal(model.generate(prompt, max_new_tokens=24, do_sample=False), expected)


@pytest.mark.parametrize("name", FULL)
def test_a_padded_row_gives_what_it_gives_alone(name: str) -> None:
    """Rows of other lengths keep other numbers, and cut what they decoded at other tokens."""
    model, lengths, decoded = tiny(name), (61, 29, 5), tokens(3, 25, seed=9)
    rows = [tokens(1, n, seed=n) for n in lengths]
    alone = []
    for i, row in enumerate(rows):
        cache = Recipe([TIGHT]).cache(model)
        logits = [model(row, past_key_values=cache).logits[0, -1]]
        logits += [model(t, past_key_values=cache).logits[0, -1] for t in decoded[i : i + 1].split(1, dim=1)]
        alone.append((logits, [layer.store.positions[0, 0].tolist() for layer in cache.layers]))
    pad = [61 - n for n in lengths]
    prompt = torch.cat([torch.nn.functional.pad(row, (n, 0)) for row, n in zip(rows, pad, strict=True)])
    mask = (torch.arange(61) >= torch.tensor(pad)[:, None]).long()
    cache = Recipe([TIGHT]).cache(model)
    for index in range(26):
        part = prompt if index == 0 else decoded[:, index - 1 : index]
        mask = mask if index == 0 else torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -part.shape[1] :]
        logits = model(part, attention_mask=mask, position_ids=places, past_key_values=cache).logits[:, -1]
        for i in range(3):
            assert (logits[i] - alone[i][0][index]).abs().max() < 1e-4
    for i in range(3):
        for layer, held in zip(cache.layers, alone[i][1], strict=True):
            assert [p for p in layer.store.positions[i, 0].tolist() if p >= 0] == held
    assert min(len(held) for held in alone[1][1]) < 29 + 25  # and something was cut


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in FULL])
def test_models_with_other_layers_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="whose every layer is full attention"):
        Recipe([TIGHT]).cache(tiny(name))
    tiny(name).set_attn_implementation("eager" if name == "gpt_oss" else "sdpa")


def test_later_turns_are_kept_whole() -> None:
    model, ids = tiny("llama_gqa"), tokens(1, 120)
    cache = Recipe([TIGHT]).cache(model)
    for part in ids.split([50, 30, 40], dim=1):
        assert torch.isfinite(model(part, past_key_values=cache).logits).all()
    assert [layer.store.length for layer in cache.layers] == [120, int((50 - 6) * 0.5) + 6 + 70]
    assert [layer.seen for layer in cache.layers] == [120, 120]
    alone = Recipe([TIGHT]).cache(model)
    model(ids[:, :50], past_key_values=alone)
    first = alone.layers[1].store.positions[0, 0].tolist()
    assert cache.layers[1].store.positions[0, 0].tolist() == [*first, *range(50, 120)]


def test_rows_take_their_counts_with_them() -> None:
    model, ids, swap = tiny("llama_gqa"), tokens(2, 60), torch.tensor([1, 0])
    mask = torch.ones(2, 40, dtype=torch.long)
    mask[1, :15] = 0
    got = {}
    for swaps in (False, True):
        cache, seen = Recipe([TIGHT]).cache(model), mask
        model(ids[:, :40], attention_mask=mask, past_key_values=cache)
        if swaps:
            cache.reorder_cache(swap)
            seen = mask[swap]
        for token in (ids[swap] if swaps else ids)[:, 40:].split(1, dim=1):
            seen = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)
            places = seen.sum(-1, keepdim=True) - 1
            out = model(token, attention_mask=seen, position_ids=places, past_key_values=cache).logits[:, -1]
        got[swaps] = out
    assert (got[True][swap] - got[False]).abs().max() < 1e-5


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True}, {"prefill_chunk_size": 24}])
def test_generate(options: dict[str, int]) -> None:
    model, prompt = tiny("llama_gqa"), tokens(2, 64)
    mask = torch.ones_like(prompt)
    mask[1, :20] = 0
    texts = []
    for _ in range(2):
        torch.manual_seed(0)
        with pith.applied(model, Recipe([TIGHT])):
            texts.append(model.generate(prompt, attention_mask=mask, max_new_tokens=20, **options))
    assert torch.equal(texts[0], texts[1])
    assert texts[0].shape[1] == 84


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_what_the_schedule_says(dtype: torch.dtype) -> None:
    model, prompt, method = deep(2).to(dtype), tokens(1, 1201), PyramidInfer(prefill_decay_ratio=0.3)
    dense = Recipe().cache(model)
    model(prompt, past_key_values=dense)
    cache = Recipe([method]).cache(model)
    model(prompt, past_key_values=cache)
    share = sum(int(n) for n in method.schedule(torch.tensor([1201]), 5)) / (5 * 1201)
    assert share < 0.9
    assert cache_bytes(cache) == pytest.approx(share * cache_bytes(dense), rel=0.01)


def test_decoding_holds_less_than_it_read() -> None:
    model, cache = tiny("llama_gqa"), Recipe([TIGHT]).cache(tiny("llama_gqa"))
    model(tokens(1, 40), past_key_values=cache)
    for token in tokens(1, 104, seed=1).split(1, dim=1):
        model(token, past_key_values=cache)
    # 20 cuts, the first after 4 + 5 tokens, of which each leaves int(5 * 0.9 * 0.5) = 2 of 5
    assert cache.layers[0].store.length == 40 + 104 - 20 * 3


def test_tokens_are_taken_back_only_after_the_last_cut() -> None:
    model, ids = tiny("llama_gqa"), tokens(1, 60)
    cache = Recipe([TIGHT]).cache(model)
    model(ids[:, :50], past_key_values=cache)
    with pytest.raises(InputError, match="evicted for good"):
        cache.crop(-1)
    before = model(ids[:, 50:52], past_key_values=cache).logits[:, -1]
    cache.crop(-1)
    again = model(ids[:, 51:52], past_key_values=cache).logits[:, -1]
    assert (again - before).abs().max() < 1e-4


def test_the_hooks_go_with_the_cache() -> None:
    model, ids = tiny("llama_gqa"), tokens(1, 40)
    layers = model.model.layers
    before = [len(layer._forward_pre_hooks) for layer in layers]
    first, second = Recipe([TIGHT]).cache(model), Recipe([TIGHT]).cache(model)
    alone = model(ids, past_key_values=first).logits[:, -1]
    assert torch.equal(model(ids, past_key_values=second).logits[:, -1], alone)
    assert [len(layer._forward_pre_hooks) for layer in layers] == [n + 2 for n in before]
    first.reset()
    assert torch.equal(model(ids, past_key_values=first).logits[:, -1], alone)
    del first, second
    gc.collect()
    assert [len(layer._forward_pre_hooks) for layer in layers] == before
