"""KIVI against its equation, written naively, and its products with codes against decoded pairs."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from contracts.largest import largest
from contracts.tiny import COMMON, tiny, tokens
from pith.attention import coded
from pith.attention.storage import Context, Packed, Storage
from pith.cache.kivi import KIVI
from pith.core import DenseCache, InputError, ParameterError, Recipe
from pith.measure import cache_bytes


def naive(numbers: list[float], bits: int) -> list[float]:
    """One group, packed and restored."""
    low, high, most = min(numbers), max(numbers), 2**bits - 1
    scale = (high - low) / most
    codes = [0 if scale == 0 else round(min(max((x - low) / scale, 0), most)) for x in numbers]
    return [code * scale + low for code in codes]


def naive_keys(x: torch.Tensor, bits: int, size: int) -> torch.Tensor:
    out = torch.empty_like(x)
    for row, head, channel in torch.cartesian_prod(*map(torch.arange, (x.shape[0], x.shape[1], x.shape[3]))).tolist():
        for start in range(0, x.shape[2], size):
            group = x[row, head, start : start + size, channel]
            out[row, head, start : start + size, channel] = torch.tensor(naive(group.tolist(), bits))
    return out


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(("count", "dim"), [(8, 8), (13, 12), (3, 4), (1, 20)])
def test_the_equation(bits: int, count: int, dim: int) -> None:
    """At lengths and sizes that are no multiples of a group, too."""
    torch.manual_seed(0)
    x = torch.randn(2, 2, count, dim)
    method = KIVI(bits=bits, group_size=8, residual_length=8)
    keys, values = (method.decode(method.encode(x, part, Context())) for part in ("keys", "values"))
    assert (keys - naive_keys(x, bits, 8)).abs().max() < 1e-5
    assert (values - naive_keys(x.transpose(2, 3), bits, 8).transpose(2, 3)).abs().max() < 1e-5


def test_equal_numbers_and_statistics_in_the_models_dtype() -> None:
    method = KIVI()
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.full((1, 2, 40, 32), 3.5, dtype=dtype)
        for part in ("keys", "values"):
            packed = method.encode(x, part, Context())
            assert torch.equal(method.decode(packed), x)
            assert {t.dtype for t in (*packed.tokens.values(), *packed.groups.values())} == {torch.uint8, dtype}


def test_padding_does_not_widen_the_groups_of_keys() -> None:
    torch.manual_seed(0)
    x, real = torch.randn(1, 2, 48, 8), torch.ones(1, 1, 48, dtype=torch.bool)
    real[..., :40] = False
    x[:, :, :40] *= 100
    method = KIVI(bits=4, group_size=16, residual_length=16)
    packed = method.encode(x, "keys", Context(real=real))
    assert torch.isfinite(method.decode(packed)).all()
    alone = naive_keys(x[:, :, 40:], 4, 16)
    assert (method.decode(packed)[:, :, 40:] - alone).abs().max() < 1e-5


@pytest.mark.parametrize("queries", [1, 4, 65])
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(
    ("count", "dim", "size"), [(64, 64, 32), (96, 128, 32), (40, 24, 8), (61, 20, 16), (5, 256, 32)]
)
def test_products_with_codes_are_those_with_what_they_decode_to(
    count: int, dim: int, size: int, bits: int, queries: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, count, dim)
    method = KIVI(bits=bits, group_size=size, residual_length=size)
    keys, values = (method.encode(x, part, Context()) for part in ("keys", "values"))
    query, weights = torch.randn(2, 3, queries, dim), torch.rand(2, 3, queries, count)
    assert (method.dot(query, keys) - Storage.dot(method, query, keys)).abs().max() < 1e-4
    assert (method.mix(weights, values) - Storage.mix(method, weights, values)).abs().max() < 1e-4
    every = torch.arange(count)
    apart = Packed(keys.tokens, {n: g[:, :, every // size] for n, g in keys.groups.items()}, 1, "keys")
    assert (method.dot(query, apart) - Storage.dot(method, query, keys)).abs().max() < 1e-4


def test_what_is_due() -> None:
    method = KIVI()
    assert [method.due("keys", n, True) for n in (127, 128, 300)] == [0, 128, 256]
    assert [method.due("values", n, True) for n in (127, 128, 300)] == [0, 0, 172]


@pytest.mark.parametrize("bits", [2, 4])
def test_a_cache_holds_what_the_paper_says(bits: int) -> None:
    """(bits + 32 / group_size) of 16 bits a number, and what is left whole; positions take 4 bytes a token more."""
    config = LlamaConfig(**{**COMMON, "num_hidden_layers": 1, "max_position_embeddings": 4096})
    config.num_key_value_heads, config.head_dim = 2, 64
    model, prompt = LlamaForCausalLM(config).to(torch.bfloat16).eval(), tokens(1, 2475)
    cache = Recipe([KIVI(bits=bits)]).cache(model)
    with torch.no_grad():
        model(prompt, past_key_values=cache)
    dense = 2 * 2 * 2475 * 64 * 2
    held = cache_bytes(cache) - 4 * 2475
    assert held / dense == pytest.approx(KIVI(bits=bits).claimed(DenseCache(tokens=2475)), rel=0.01)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama_mha", "llama_gqa", "gemma3", "gpt_oss"])
def test_a_prompt_is_exact_and_more_bits_are_nearer(name: str) -> None:
    model, prompt, decoded = tiny(name), tokens(2, 77), tokens(2, 20, seed=1)
    before = model.config._attn_implementation
    dense = model(torch.cat([prompt, decoded], dim=1)).logits
    far = []
    for bits in (2, 4):
        cache = Recipe([KIVI(bits=bits, group_size=8, residual_length=8)]).cache(model)
        first = model(prompt, past_key_values=cache).logits
        assert (first - dense[:, :77]).abs().max() < 1e-4
        steps = [model(decoded[:, i : i + 1], past_key_values=cache).logits for i in range(20)]
        far.append((torch.cat(steps, dim=1) - dense[:, 77:]).abs().mean().item())
    model.set_attn_implementation(before)
    assert 0 < far[1] < 0.5 * far[0]


@torch.no_grad()
def test_a_prompt_shorter_than_the_residual_is_dense() -> None:
    model, prompt, decoded = tiny("llama_gqa"), tokens(2, 40), tokens(2, 5, seed=1)
    dense = model(torch.cat([prompt, decoded], dim=1)).logits[:, 40:]
    cache = Recipe([KIVI()]).cache(model)
    model(prompt, past_key_values=cache)
    steps = [model(decoded[:, i : i + 1], past_key_values=cache).logits for i in range(5)]
    model.set_attn_implementation("sdpa")
    assert (torch.cat(steps, dim=1) - dense).abs().max() < 1e-5


@torch.no_grad()
def test_a_decoded_token_makes_no_second_copy_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coded, "BLOCK", 2**17)
    model = tiny("llama_gqa")
    cache = Recipe([KIVI()]).cache(model)
    pairs = torch.randn(1, 2, 20480, 16)
    for layer in cache.layers:
        layer.store.append(pairs, pairs, torch.arange(20480, dtype=torch.int32)[None, None], decoding=False)
        layer.numbering.seen, layer.is_initialized = 20480, True
        layer.store.settle()
    model(tokens(1, 1), past_key_values=cache)  # grows the buffers
    with largest() as made:
        model(tokens(1, 1), past_key_values=cache, position_ids=torch.tensor([[400]]))
    model.set_attn_implementation("sdpa")
    assert made.numbers <= 4 * (20480 + 2)  # the attention weights of one layer


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ParameterError, match="residual_length is 40; allowed are multiples of group_size"):
        KIVI(residual_length=40)
    with pytest.raises(InputError, match="heads of size 6 cannot be stored in 2 bits; allowed are multiples of 4"):
        KIVI().encode(torch.randn(1, 1, 8, 6), "keys", Context())
