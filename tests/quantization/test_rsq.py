"""RSQ end to end: attention that tokens get, its part in the Hessian, and the rotation before."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import pith
from contracts.compressors import llama, texts
from contracts.tiny import tiny
from pith.core import ModelError
from pith.quantization.rsq import RSQ, attention_received, scaled
from pith.weights import PackedLinear, fit_grid, walk
from pith.weights.duplicate import duplicate
from pith.weights.rotation import rotate


def weights(model: Any) -> list[torch.Tensor]:
    return [layer.dense() for layer in model.modules() if isinstance(layer, PackedLinear)]


@pytest.mark.parametrize("name", ["llama_mha", "llama_gqa", "qwen3", "mistral_sliding"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_attention_received_is_that_of_the_model(name: str, implementation: str) -> None:
    model, inputs = duplicate(tiny(name)), texts()
    model.set_attn_implementation("eager")
    expected = model(input_ids=inputs.tokens, output_attentions=True).attentions
    model.set_attn_implementation(implementation)
    for stage in walk(model, inputs):
        found = attention_received(model, stage)
        torch.testing.assert_close(found, expected[stage.index].sum(dim=(1, 2)))
        assert model.config._attn_implementation == implementation


def test_importance_of_a_sequence() -> None:
    found = scaled(torch.tensor([[1.0, 3.0, 5.0], [2.0, 2.0, 2.0]]), 0.5)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.75, 1.0], [0.75, 0.75, 0.75]]) / 0.75)


def test_all_tokens_of_one_importance_give_a_rotated_gptq() -> None:
    model = duplicate(llama())
    with torch.no_grad():
        rotate(model, seed=3)
    options = 'bits={"*.0.*": 3}, group_size=32, mse=True, true_sequential=True'
    expected = weights(pith.compress(model, f"gptq({options})", texts()))
    found = weights(pith.compress(llama(), f"rsq({options}, least=1.0, seed=3)", texts()))
    near = torch.cat([(a - b).abs().flatten() < 1e-3 for a, b in zip(found, expected, strict=True)])
    assert near.float().mean() > 0.98  # a tie that falls the other way moves what follows it in its row
    other = weights(pith.compress(llama(), f"rsq({options}, seed=3)", texts()))
    near = torch.cat([(a - b).abs().flatten() < 1e-3 for a, b in zip(other, expected, strict=True)])
    assert near.float().mean() < 0.95


def test_without_rotation_embeddings_stay_and_with_it_they_are_two() -> None:
    plain, turned = (
        pith.compress(llama(True), f'rsq(bits={{"*.q_proj": 4}}, rotate={value})', texts()) for value in (False, True)
    )
    assert plain.lm_head.weight is plain.get_input_embeddings().weight
    assert turned.lm_head.weight is not turned.get_input_embeddings().weight
    assert not turned.config.tie_word_embeddings
    assert llama(True).config.tie_word_embeddings


def test_rolled_sequences_are_read_too() -> None:
    once, twice = (
        weights(pith.compress(llama(), f'rsq(bits={{"*.0.mlp.*": 4}}, expansion={n})', texts())) for n in (1, 2)
    )
    assert any(not torch.equal(a, b) for a, b in zip(once, twice, strict=True))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_symmetric_grids_have_the_greatest_weight_on_them(bits: int) -> None:
    weight = torch.randn(4, 48, generator=torch.Generator().manual_seed(0))
    grid = RSQ(group_size=16, symmetric=True).fitted(weight, bits)
    greatest = weight.view(4, 3, 16).abs().amax(-1)
    torch.testing.assert_close((2 ** (bits - 1) - 1) * grid.scale, greatest)
    assert grid.zero.eq(2 ** (bits - 1)).all()
    assert torch.equal(RSQ(group_size=16).fitted(weight, bits).scale, fit_grid(weight, bits, 16).scale)


@pytest.mark.parametrize("name", ["phi3", "gpt_neox", "olmoe", "gemma3"])
def test_models_of_another_kind_are_refused(name: str) -> None:
    with pytest.raises(ModelError):
        pith.compress(tiny(name), "rsq()", texts())
