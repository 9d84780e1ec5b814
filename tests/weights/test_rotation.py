"""Rotations: orthogonal, the same model afterwards, and refusals of models that would be another one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from transformers import AutoModelForCausalLM

from contracts.tiny import COMMON, tiny, tokens
from pith.core import ModelError
from pith.weights import blocks, parts
from pith.weights.duplicate import duplicate
from pith.weights.rotation import Rotation, rotate

SHARED = {**COMMON, "num_key_value_heads": 2}
MAKERS = {
    "biases": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SHARED, attention_bias=True, mlp_bias=True)),
    "tied": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SHARED, tie_word_embeddings=True)),
    "odd": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**{**SHARED, "hidden_size": 96})),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SHARED, tie_word_embeddings=True)),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**SHARED, head_dim=16)),
    "granite": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**SHARED, residual_multiplier=0.5)),
}
"""Biases of writers; embeddings that are one; sizes of 3 x 32 and 3 x 8; norms with 1 + weight; scaled streams."""

SAME = ["llama_mha", "llama_gqa", "qwen3", "mistral_sliding", *MAKERS]


@cache
def made(name: str) -> Any:
    if name not in MAKERS:
        return tiny(name)
    torch.manual_seed(0)
    model = MAKERS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0) if parameter.ndim >= 2 else parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def rotated(name: str, seed: int = 0) -> Any:
    model = duplicate(made(name))
    with torch.no_grad():
        rotate(model, seed)
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=tokens(2, 40)).logits


@pytest.mark.parametrize("size", [1, 3, 16, 24, 96])
def test_a_rotation_is_an_orthogonal_matrix(size: int) -> None:
    turn = Rotation.random(size, torch.Generator().manual_seed(0))
    matrix = turn(torch.eye(size))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size).double())
    x = torch.randn(2, 3, size, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(turn(x), x.double() @ matrix)
    if size & (size - 1) == 0:
        torch.testing.assert_close(matrix.abs(), torch.full((size, size), size**-0.5).double())


@pytest.mark.parametrize("name", SAME)
def test_rotation_alone_keeps_the_logits(name: str) -> None:
    expected, tensors = logits(made(name)), {k: v.clone() for k, v in made(name).state_dict().items()}
    model = rotated(name)
    assert (logits(model) - expected).abs().max() < 1e-4
    assert all(torch.equal(tensors[key], tensor) for key, tensor in made(name).state_dict().items())
    first, before = parts(blocks(model)[0]), parts(blocks(made(name))[0])
    for layer in ("q", "v", "o", "up", "down"):
        assert not torch.allclose(getattr(first, layer).weight, getattr(before, layer).weight, atol=0.1)


@pytest.mark.parametrize("name", ["llama_gqa", "tied", "gemma"])
def test_a_rotated_model_is_a_plain_one_without_tied_embeddings(name: str, tmp_path: Path) -> None:
    model = rotated(name)
    assert not model.config.tie_word_embeddings
    model.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(plain) is type(made(name))
    assert torch.equal(logits(plain), logits(model))


def test_in_bfloat16_the_logits_stay_within_its_rounding() -> None:
    model = duplicate(tiny("llama_gqa", torch.bfloat16))
    expected = logits(model).float()
    with torch.no_grad():
        rotate(model)
    assert model.dtype == torch.bfloat16
    assert (logits(model).float() - expected).norm() < 0.05 * expected.norm()


def test_the_seed_decides() -> None:
    first, again, other = (rotated("llama_gqa", seed).lm_head.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_outliers_of_the_stream_are_spread() -> None:
    model = duplicate(made("llama_gqa"))
    with torch.no_grad():
        wide = model.get_input_embeddings().weight.clone()
        wide[:, 5] *= 50
        model.get_input_embeddings().weight = torch.nn.Parameter(wide)
        before = wide.abs().amax() / wide.square().mean().sqrt()
        rotate(model)
        after = model.get_input_embeddings().weight
        assert after.abs().amax() / after.square().mean().sqrt() < before / 4


@pytest.mark.parametrize(
    ("name", "why"),
    [("gemma3", "norms after its parts"), ("gpt_neox", "no self_attn"), ("phi3", "q_proj"), ("olmoe", "up_proj")],
)
def test_what_would_be_another_model_is_refused(name: str, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        rotated(name)


def test_norms_that_subtract_the_mean_are_refused() -> None:
    model = duplicate(made("llama_gqa"))
    blocks(model)[1].input_layernorm = torch.nn.LayerNorm(64, bias=False)
    with pytest.raises(ModelError, match="a LayerNorm cannot be folded"), torch.no_grad():
        rotate(model)


def test_a_model_that_reads_its_stream_elsewhere_too_is_refused() -> None:
    model = duplicate(made("llama_gqa"))
    blocks(model)[1].register_forward_hook(lambda module, args, output: output * torch.linspace(0.5, 1.5, 64))
    with pytest.raises(ModelError, match="gives something else after a rotation"), torch.no_grad():
        rotate(model)
