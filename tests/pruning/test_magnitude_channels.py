"""Structured magnitude pruning takes out the smallest channels and heads, and leaves a plain model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import pith
from contracts.tiny import tiny, tokens
from pith.core import ModelError
from pith.pruning.magnitude_channels import MagnitudeChannels, channel_sizes, head_sizes
from pith.weights import blocks, parts


@torch.no_grad()
def test_the_smallest_channels_go() -> None:
    dense = tiny("llama_gqa")
    pruned = MagnitudeChannels(sparsity=0.25, heads=False).compress(dense)
    for before, after in zip(blocks(dense), blocks(pruned), strict=True):
        old, new = parts(before), parts(after)
        sizes = [
            float(old.gate.weight[c].abs().sum() + old.up.weight[c].abs().sum() + old.down.weight[:, c].abs().sum())
            for c in range(96)
        ]
        assert channel_sizes(before).tolist() == pytest.approx(sizes, rel=1e-5)
        # a quarter of attention (3 * 64 * 64) and MLP (3 * 64 * 96), all of it in channels of 3 * 64 weights
        fewer = round(0.25 * (3 * 64 * 64 + 3 * 64 * 96) / (3 * 64))
        kept = sorted(sorted(range(96), key=lambda c: sizes[c])[fewer:])
        assert torch.equal(new.gate.weight, old.gate.weight[kept])
        assert torch.equal(new.up.weight, old.up.weight[kept])
        assert torch.equal(new.down.weight, old.down.weight[:, kept])


@torch.no_grad()
def test_the_smallest_head_goes_with_its_queries() -> None:
    dense = tiny("llama_gqa")
    pruned = MagnitudeChannels(sparsity=0.5).compress(dense)
    for before, after in zip(blocks(dense), blocks(pruned), strict=True):
        old, new = parts(before), parts(after)
        sizes = head_sizes(dense, before)
        assert float(sizes[1]) == pytest.approx(
            float(
                old.q.weight[32:].abs().sum()
                + old.k.weight[16:].abs().sum()
                + old.v.weight[16:].abs().sum()
                + old.o.weight[:, 32:].abs().sum()
            ),
            rel=1e-5,
        )
        best = int(sizes.argmax())
        assert torch.equal(new.k.weight, old.k.weight[16 * best : 16 * best + 16])
        assert torch.equal(new.q.weight, old.q.weight[32 * best : 32 * best + 32])
        assert torch.equal(new.o.weight, old.o.weight[:, 32 * best : 32 * best + 32])


@pytest.mark.parametrize("sparsity", [0.1, 0.2, 0.35, 0.5])
def test_the_share_that_goes_is_the_one_asked_for(sparsity: float) -> None:
    dense = tiny("llama_mha")
    smaller = MagnitudeChannels(sparsity=sparsity).compress(dense)
    before, after = (sum(p.numel() for b in blocks(m) for p in b.parameters() if p.ndim == 2) for m in (dense, smaller))
    assert 1 - after / before == pytest.approx(sparsity, abs=0.006)


@pytest.mark.parametrize("name", ["llama_gqa", "qwen3", "mistral_sliding", "gemma3"])
def test_the_result_is_a_plain_model(name: str, tmp_path: Path) -> None:
    smaller = MagnitudeChannels(sparsity=0.4).compress(tiny(name))
    smaller.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert again.config.num_key_value_heads == 1
    assert again.config.intermediate_size < 96
    assert torch.equal(again(tokens(2, 24)).logits, smaller(tokens(2, 24)).logits)


def test_models_without_separate_projections_are_refused() -> None:
    with pytest.raises(ModelError, match=r"Phi3DecoderLayer has no self_attn.q_proj; allowed are blocks of the Llama"):
        pith.compress(tiny("phi3"), "magnitude_channels")
