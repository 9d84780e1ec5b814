"""SparseGPT: shares and patterns, what is made up for, and models end to end."""

from __future__ import annotations

import pytest
import torch

import pith
from contracts.compressors import llama, texts
from contracts.tiny import tiny
from pith.core import PithWarning
from pith.pruning.sparse_gpt import SparseGPT
from pith.weights import block_linears, weight_of
from pith.weights.sparsity import Pattern


def drawn(out: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mix = torch.eye(inputs) + torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    rows = torch.randn(3 * inputs, inputs, generator=generator) @ mix
    return torch.randn(out, inputs, generator=generator), rows.T @ rows / len(rows)


def loss(weight: torch.Tensor, pruned: torch.Tensor, hessian: torch.Tensor) -> float:
    return float(((weight - pruned) @ hessian * (weight - pruned)).sum())


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 1.0])
def test_the_share_is_exact_in_every_block_of_columns(sparsity: float) -> None:
    weight, hessian = drawn(6, 200)
    zeros = SparseGPT(sparsity=sparsity).pruned(weight, hessian) == 0
    assert int(zeros[:, :128].sum()) == int(6 * 128 * sparsity)
    assert int(zeros[:, 128:].sum()) == int(6 * 72 * sparsity)


def test_equal_weights_are_pruned_to_the_share_too() -> None:
    _, hessian = drawn(4, 32)
    assert int((SparseGPT(sparsity=0.25).pruned(torch.ones(4, 32), torch.eye(32)) == 0).sum()) == 32
    assert int((SparseGPT(sparsity=0.25).pruned(torch.zeros(4, 32), hessian) == 0).sum()) == 128


@pytest.mark.parametrize(("pattern", "of"), [("2:4", 4), ("4:8", 8)])
def test_half_of_every_group(pattern: Pattern, of: int) -> None:
    weight, hessian = drawn(5, 136)
    zeros = SparseGPT(pattern=pattern).pruned(weight, hessian) == 0
    assert zeros.view(5, -1, of).sum(-1).eq(of // 2).all()


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_what_is_left_makes_up_for_what_went(pattern: Pattern) -> None:
    weight, hessian = drawn(16, 64)
    method = SparseGPT(pattern=pattern)
    pruned = method.pruned(weight, hessian)
    assert loss(weight, pruned, hessian) < 0.8 * loss(weight, weight.masked_fill(pruned == 0, 0), hessian)
    alone = method.pruned(weight, torch.eye(64))  # inputs that do not depend on each other: nothing can be made up for
    assert torch.equal(alone, weight.masked_fill(alone == 0, 0))
    kept = weight.abs() * (alone != 0)
    assert pattern != "unstructured" or kept[kept > 0].min() >= (weight.abs() * (alone == 0)).max()


def test_a_model_is_pruned_block_by_block() -> None:
    smaller = pith.compress(llama(), 'sparse_gpt(sparsity=0.25, skip="down_proj")', texts())
    for name, layer in block_linears(smaller).items():
        zeros = (weight_of(layer) == 0).float().mean()
        assert zeros == (0 if name.endswith("down_proj") else 0.25)
    assert type(smaller) is type(llama())


def test_experts_that_no_token_reached_are_pruned_by_size_and_named() -> None:
    with pytest.warns(PithWarning, match=r"no token of the calibration reached .*experts.*size of the weights alone"):
        smaller = pith.compress(tiny("olmoe"), "sparse_gpt()", texts(1, 2))
    fused = smaller.model.layers[0].mlp.experts.down_proj
    assert fused.ndim == 3
    assert (fused == 0).float().mean() == 0.5
    dense = tiny("olmoe").model.layers[0].mlp.experts.down_proj
    unreached = [
        index for index in range(4) if torch.equal(fused[index][fused[index] != 0], dense[index][fused[index] != 0])
    ]
    assert unreached
