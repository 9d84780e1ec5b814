"""Second moments of what layers read, the order in which they read it, and the inverse's factor."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from contracts.tiny import tiny, tokens
from pith.core import ModelError
from pith.weights import block_linears, split_experts, walk
from pith.weights.calibration import of_tokens
from pith.weights.duplicate import duplicate
from pith.weights.hessian import SecondMoments, in_turn, inverse_factor, moments


def first_stage(name: str) -> tuple[Any, Any]:
    model = duplicate(tiny(name))
    split_experts(model)
    with torch.no_grad():
        stage = next(walk(model, of_tokens(tokens(3, 20).tolist())))
    return stage, {key: layer for key, layer in block_linears(model).items() if key.startswith(f"{stage.name}.")}


def test_moments_are_the_products_of_what_a_layer_reads() -> None:
    stage, layers = first_stage("llama_gqa")
    importance = torch.rand(60, generator=torch.Generator().manual_seed(0))
    name = "model.layers.0.self_attn.q_proj"
    with torch.no_grad():
        plain, scaled = (moments(stage, {name: layers[name]}, given)[name] for given in (None, importance))
        read = torch.cat([stage.block.input_layernorm(states).flatten(0, 1) for states in stage.inputs])
    expected = sum(2 / 3 * torch.outer(row, row) for row in read)
    torch.testing.assert_close(plain.hessian(3), expected)
    expected = sum(2 / 3 * r * torch.outer(row, row) for r, row in zip(importance, read, strict=True))
    torch.testing.assert_close(scaled.hessian(3), expected)
    assert plain.tokens == scaled.tokens == 60


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama_gqa", [{"q_proj", "k_proj", "v_proj"}, {"o_proj"}, {"gate_proj", "up_proj"}, {"down_proj"}]),
        ("phi3", [{"qkv_proj"}, {"o_proj"}, {"gate_up_proj"}, {"down_proj"}]),
        ("gpt_neox", [{"query_key_value"}, {"dense"}, {"dense_h_to_4h"}, {"dense_4h_to_h"}]),
        ("olmoe", [{"q_proj", "k_proj", "v_proj"}, {"o_proj"}, {"gate_up_proj"}, {"down_proj"}]),
    ],
)
def test_layers_in_the_order_in_which_they_read(name: str, expected: list[set[str]]) -> None:
    stage, layers = first_stage(name)
    with torch.no_grad():
        found = in_turn(stage, layers)
    assert [{one.rpartition(".")[2] for one in names} for names in found] == expected
    assert sorted(one for names in found for one in names) == sorted(layers)  # every expert's, whoever is reached


def test_the_factor_is_that_of_the_inverse() -> None:
    rows = torch.randn(50, 12, generator=torch.Generator().manual_seed(0)).double()
    hessian = rows.T @ rows
    factor = inverse_factor(hessian, damping=0.02)
    damped = hessian + 0.02 * hessian.diagonal().mean() * torch.eye(12)
    torch.testing.assert_close(factor.T @ factor, damped.inverse())
    assert torch.equal(factor, factor.triu())


def test_more_damping_where_it_is_not_enough() -> None:
    matrix = torch.diag(torch.tensor([1.0, -0.04, 2.0]))  # as rounding leaves it; the mean of the diagonal is 0.987
    factor = inverse_factor(matrix, damping=0.01)
    expected = (matrix + 0.1 * matrix.diagonal().mean() * torch.eye(3)).inverse()
    torch.testing.assert_close(factor.T @ factor, expected)


def test_what_cannot_be_inverted_is_refused() -> None:
    read = SecondMoments(4)
    read.add(torch.full((2, 4), float("nan")))
    with pytest.raises(ModelError, match="a layer of 4 inputs"):
        inverse_factor(read.hessian(1))
