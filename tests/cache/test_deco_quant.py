"""DecoQuant against its equation, and its products with codes against decoded pairs."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange

from contracts.largest import largest
from contracts.tiny import tiny, tokens
from pith.attention import coded
from pith.attention.coded import Coded
from pith.attention.storage import Context, Storage
from pith.cache.deco_quant import DecoQuant
from pith.core import InputError, Recipe
from pith.measure import cache_bytes
from pith.models import builtin
from pith.tasks.heldout import heldout_text


def naive(x: torch.Tensor, bits: int, inner: int) -> torch.Tensor:
    """One row [head, token, dim], by the decomposition as the paper writes it, in double precision."""
    heads, count, _ = x.shape
    matrix = rearrange(x.double(), "h t (j i) -> (t h j) i", i=inner)
    u, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    large, small = u * sizes.sqrt(), sizes.sqrt()[:, None] * right
    large = large.reshape(count, -1)
    scale = large.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    restored = ((large / scale).round() * scale).reshape(len(matrix), -1) @ small
    return rearrange(restored, "(t h j) i -> h t (j i)", t=count, h=heads).float()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    ("heads", "count", "dim", "inner"), [(2, 21, 8, 8), (4, 13, 16, 4), (1, 50, 16, 16), (2, 3, 8, 1)]
)
def test_the_equation(heads: int, count: int, dim: int, inner: int, bits: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, heads, count, dim)
    method = DecoQuant(bits=bits, inner=inner)
    restored = method.decode(method.encode(x, "keys", Context()))
    for row in range(2):
        far = (restored[row] - naive(x[row], bits, inner)).abs()
        # a number within rounding of a tie may be given the next code
        assert (far > 1e-3).float().mean() < 0.05


@pytest.mark.parametrize("count", [1, 7, 300])
def test_the_factors_give_back_what_they_were_made_of(count: int) -> None:
    torch.manual_seed(0)
    x, method = torch.randn(2, 2, count, 16), DecoQuant()
    small, inverse = method.factor(x)
    assert (method._each(method._each(x, inverse), small) - x).abs().max() < 1e-4
    assert torch.isfinite(method.decode(method.encode(torch.zeros(1, 2, count, 16), "keys", Context()))).all()


@pytest.mark.parametrize("queries", [1, 4, 65])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_products_with_codes_are_those_with_what_they_decode_to(bits: int, queries: int) -> None:
    """Of one block, of several, and of tokens of which each has its own factor."""
    torch.manual_seed(0)
    method = DecoQuant(bits=bits, inner=4, block=10)
    for lengths in ([45], [45, 10, 10, 10]):
        column = Coded(method, "values")
        for length in lengths:
            column.append(torch.randn(2, 3, length, 16), decoding=False)
            column.pack(Context(), prefill=length == 45)
        for kept in (None, torch.arange(0, sum(lengths), 2).expand(2, 3, -1)):
            if kept is not None:
                column.keep(kept)
            count = column.length
            query, weights = torch.randn(2, 3, queries, 16), torch.rand(2, 3, queries, count)
            dense = column.dense()
            assert (column.dot(query) - query @ dense.mT).abs().max() < 2e-4
            assert (column.mix(weights) - weights @ dense).abs().max() < 5e-4
            for packed in (b for shelf in column.shelves for b in shelf.blocks(7)):
                assert (method.dot(query, packed) - Storage.dot(method, query, packed)).abs().max() < 2e-4


def test_padding_leaves_no_mark() -> None:
    torch.manual_seed(0)
    x, method = torch.randn(1, 2, 40, 16), DecoQuant()
    alone = method.decode(method.encode(x[:, :, 15:], "keys", Context()))
    x[:, :, :15] *= 100
    real = torch.arange(40)[None, None] >= 15
    padded = method.decode(method.encode(x, "keys", Context(real=real)))
    assert ((padded[:, :, 15:] - alone).abs() > 1e-4).float().mean() < 0.02


def test_what_is_due() -> None:
    method = DecoQuant()
    assert method.due("keys", 37, prefill=True) == 37
    assert [method.due("values", n, prefill=False) for n in (999, 1000, 2001)] == [0, 1000, 2000]


@torch.no_grad()
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_cache_holds_codes_scales_and_a_tiny_factor(bits: int) -> None:
    model = tiny("llama_gqa", torch.bfloat16)
    cache = Recipe([DecoQuant(bits=bits, inner=8)]).cache(model)
    model(tokens(1, 400), past_key_values=cache)
    model.set_attn_implementation("sdpa")
    layers, parts, heads = 2, 2, 2
    each = 400 * (heads * 16 * bits // 8 + 2) + 8 * 8 * 2
    assert cache_bytes(cache) == layers * (parts * each + 400 * 4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama_mha", "llama_gqa", "gemma3", "gpt_oss"])
def test_a_prompt_is_exact_and_more_bits_are_nearer(name: str) -> None:
    model, prompt, decoded = tiny(name), tokens(2, 77), tokens(2, 20, seed=1)
    before = model.config._attn_implementation
    dense = model(torch.cat([prompt, decoded], dim=1)).logits
    far = []
    for bits in (4, 8):
        cache = Recipe([DecoQuant(bits=bits, block=8)]).cache(model)
        first = model(prompt, past_key_values=cache).logits
        assert (first - dense[:, :77]).abs().max() < 1e-4
        steps = [model(decoded[:, i : i + 1], past_key_values=cache).logits for i in range(20)]
        far.append((torch.cat(steps, dim=1) - dense[:, 77:]).abs().mean().item())
    model.set_attn_implementation(before)
    assert 0 < far[1] < 0.2 * far[0]


def test_outliers_in_a_few_channels_are_better_kept_than_by_plain_rounding() -> None:
    """Where a direction, not a channel, is large: what plain rounding of each token cannot tell apart."""
    torch.manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(16), dim=0)
    x = torch.randn(1, 2, 500, 32) + 20 * torch.randn(1, 2, 500, 2, 1).mul(direction).flatten(3)
    method = DecoQuant(bits=4)
    mine = (method.decode(method.encode(x, "keys", Context())) - x).norm()
    assert mine < 0.7 * (rounded(x, 4) - x).norm()


@torch.no_grad()
def test_on_real_keys_it_is_nearer_than_plain_rounding_by_token() -> None:
    """With one scale a token each, at four bits, of a trained model: the keys of every layer."""
    model, tokenizer = builtin()
    prompt = torch.tensor([tokenizer(heldout_text()[:6000])["input_ids"][:1024]])
    cache = Recipe().cache(model)
    model(prompt, past_key_values=cache)
    model.set_attn_implementation("sdpa")
    method = DecoQuant(bits=4)
    for layer in cache.layers:
        x = layer.store.keys
        mine = (method.decode(method.encode(x, "keys", Context())) - x).norm()
        assert mine < 0.95 * (rounded(x, 4) - x).norm()


def rounded(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Symmetric rounding with one scale a token, over all heads."""
    most = 2 ** (bits - 1) - 1
    scale = x.abs().amax(dim=(1, 3), keepdim=True) / most
    return (x / scale).round() * scale


def test_a_token_makes_no_second_copy_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coded, "BLOCK", 2**17)
    column = Coded(DecoQuant(), "keys")
    column.append(torch.randn(1, 2, 20480, 16), decoding=False)
    column.pack(Context(), prefill=True)
    with largest() as made:
        column.dot(torch.randn(1, 2, 1, 16))
        column.mix(torch.rand(1, 2, 1, 20480))
    assert made.numbers <= 0.2 * 2 * 20480 * 16


def test_a_head_that_runs_of_channels_do_not_fill_is_refused() -> None:
    with pytest.raises(InputError, match="inner is 16 and heads have the size 24; allowed are its divisors"):
        DecoQuant().encode(torch.randn(1, 1, 8, 24), "keys", Context())
