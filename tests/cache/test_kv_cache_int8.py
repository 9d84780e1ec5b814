"""Eight-bit pairs against the equation, and products with codes against decoded pairs."""

from __future__ import annotations

import pytest
import torch

from contracts.largest import largest
from contracts.tiny import tiny, tokens
from pith.attention import coded
from pith.attention.coded import Coded
from pith.attention.storage import Context, Storage
from pith.cache.kv_cache_int8 import KVCacheInt8
from pith.core import Recipe
from pith.measure import cache_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("count", "dim"), [(1, 8), (13, 5), (40, 64)])
def test_the_equation(count: int, dim: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, count, dim).to(dtype)
    packed = KVCacheInt8().encode(x, "keys", Context())
    restored = KVCacheInt8().decode(packed)
    assert packed.tokens["code"].dtype == torch.int8
    assert restored.dtype == packed.tokens["scale"].dtype == dtype
    for row, head, token in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(count)).tolist():
        given, got = x[row, head, token].float(), restored[row, head, token].float()
        scale = float(given.abs().max()) / 127
        # half a step, and the rounding of scale and product to the dtype
        assert float((given - got).abs().max()) <= 0.5 * scale + 2 * torch.finfo(dtype).eps * float(given.abs().max())


def test_zeros_stay_zeros() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.zeros(1, 2, 3, 8, dtype=dtype)
        assert torch.equal(KVCacheInt8().decode(KVCacheInt8().encode(x, "values", Context())), x)


def test_products_with_codes_are_those_with_what_they_decode_to() -> None:
    torch.manual_seed(0)
    method, x = KVCacheInt8(), torch.randn(2, 3, 45, 20)
    query, weights = torch.randn(2, 3, 4, 20), torch.rand(2, 3, 4, 45)
    keys, values = (method.encode(x, part, Context()) for part in ("keys", "values"))
    torch.testing.assert_close(method.dot(query, keys), Storage.dot(method, query, keys))
    torch.testing.assert_close(method.mix(weights, values), Storage.mix(method, weights, values))


@torch.no_grad()
def test_every_token_is_packed_when_it_was_read() -> None:
    model, method = tiny("llama_gqa"), KVCacheInt8()
    cache = Recipe([method]).cache(model)
    model(tokens(2, 37), past_key_values=cache)
    for _ in range(3):
        model(tokens(2, 1), past_key_values=cache)
    model.set_attn_implementation("sdpa")
    for layer in cache.layers:
        for column in (layer.store.key_column, layer.store.value_column):
            assert (column.packed, column.recent.length) == (40, 0)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cache_holds_a_byte_a_number_and_a_scale(dtype: torch.dtype) -> None:
    model = tiny("llama_gqa", dtype)
    cache = Recipe([KVCacheInt8()]).cache(model)
    model(tokens(1, 300), past_key_values=cache)
    model.set_attn_implementation("sdpa")
    layers, pairs, heads, positions = 2, 2, 2, 4
    assert cache_bytes(cache) == layers * 300 * (pairs * heads * (16 + dtype.itemsize) + positions)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama_mha", "llama_gqa", "gemma3", "gpt_oss"])
def test_a_prompt_is_exact_and_decoding_is_near(name: str) -> None:
    model, prompt, decoded = tiny(name), tokens(2, 77), tokens(2, 9, seed=1)
    before = model.config._attn_implementation
    dense = model(torch.cat([prompt, decoded], dim=1)).logits
    cache = Recipe([KVCacheInt8()]).cache(model)
    assert (model(prompt, past_key_values=cache).logits - dense[:, :77]).abs().max() < 1e-4
    steps = [model(decoded[:, i : i + 1], past_key_values=cache).logits for i in range(9)]
    model.set_attn_implementation(before)
    assert 0 < (torch.cat(steps, dim=1) - dense[:, 77:]).abs().max() < 0.1 * dense.abs().max()


def test_a_token_makes_no_second_copy_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coded, "BLOCK", 2**17)
    method = KVCacheInt8()
    column = Coded(method, "keys")
    column.append(torch.randn(1, 2, 20480, 16), decoding=False)
    column.pack(Context(), prefill=True)
    with largest() as made:
        column.dot(torch.randn(1, 2, 1, 16))
        column.mix(torch.rand(1, 2, 1, 20480))
    assert made.numbers <= 2**17
