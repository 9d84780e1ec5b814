"""Gradients through a cache over several forwards are right, or refused in one line."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import transformers as hf

import pith
from contracts.tiny import COMMON, tokens
from pith.core import InputError

EXACT = ["dense", "snapkv(budget=1.0)", "streaming_llm(budget=100)", "ada_kv(snapkv(budget=1.0))", "quest"]
EVICTING = [
    "snapkv(budget=8, window=4)",
    "streaming_llm(budget=8)",
    "h2o(budget=8)",
    "ada_kv(snapkv(budget=8, window=4))",
    "sir_llm(budget=16)",
    "pyramid_infer(min_context_length=8, prefill_decay_ratio=0.5)",
]
CUT = ["kivi(residual_length=16, group_size=16)", "think", "kvzip(budget=0.5)"]


@pytest.fixture(scope="module")
def model() -> hf.PreTrainedModel:
    torch.manual_seed(0)
    made = hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON, num_key_value_heads=2, head_dim=16)).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3.0)
    return made.requires_grad_(False)


def loss(model: hf.PreTrainedModel, recipe: str | None, change: torch.Tensor) -> torch.Tensor:
    """The sum of some logits over a prompt, decoded tokens and a further turn; the prompt's embeddings are changed."""
    ids = tokens(1, 50)
    handle = model.get_input_embeddings().register_forward_hook(
        lambda module, args, out: out + change if out.shape[1] == change.shape[1] else out
    )
    try:
        with nullcontext() if recipe is None else pith.applied(model, recipe):
            cache = model(ids[:, :40], use_cache=True).past_key_values
            total = torch.zeros((), dtype=torch.float64)
            for part in ids[:, 40:].split([1, 1, 1, 1, 6], dim=1):
                total = total + model(part, past_key_values=cache).logits[0, -1, :5].sum()
        return total
    finally:
        handle.remove()


def gradient(model: hf.PreTrainedModel, recipe: str | None) -> torch.Tensor:
    change = torch.zeros(1, 40, 64, dtype=torch.float64, requires_grad=True)
    loss(model, recipe, change).backward()
    assert change.grad is not None
    return change.grad


@pytest.mark.parametrize("recipe", EXACT)
def test_what_keeps_everything_has_the_gradients_of_plain_transformers(model: hf.PreTrainedModel, recipe: str) -> None:
    expected = gradient(model, None)
    assert (gradient(model, recipe) - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("recipe", EVICTING)
def test_gradients_are_those_of_finite_differences(model: hf.PreTrainedModel, recipe: str) -> None:
    found = gradient(model, recipe)
    direction = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    step = 1e-4
    with torch.no_grad():
        ahead, behind = loss(model, recipe, step * direction), loss(model, recipe, -step * direction)
    expected = (ahead - behind) / (2 * step)
    assert ((found * direction).sum() - expected).abs() < 5e-3 * expected.abs()  # weights are computed in float32


@pytest.mark.parametrize("recipe", CUT)
def test_what_has_no_gradient_is_one_line_and_reads_without_backward(model: hf.PreTrainedModel, recipe: str) -> None:
    with torch.no_grad():
        expected = loss(model, recipe, torch.zeros(1, 40, 64, dtype=torch.float64))
    change = torch.zeros(1, 40, 64, dtype=torch.float64, requires_grad=True)
    got = loss(model, recipe, change)
    assert (got - expected).abs() < 1e-5 * expected.abs()
    with pytest.raises(InputError) as error:
        got.backward()
    line = str(error.value)
    assert f"gradients do not pass through what {recipe.split('(')[0]} holds" in line
    assert "torch.no_grad()" in line
    assert len(line) < 300


def test_parameters_have_gradients_after_a_step_of_every_kind(model: hf.PreTrainedModel) -> None:
    """In float32, with gradients of all parameters and several cycles on one model."""
    trained = hf.LlamaForCausalLM(model.config).float()
    for recipe in EVICTING:
        with pith.applied(trained, recipe):
            cache = trained(tokens(1, 40), use_cache=True).past_key_values
            trained(tokens(1, 1), past_key_values=cache).logits.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained.parameters())
