"""GPTQ against numbers that the authors' code gave: Hessian, factor, grids, and codes with each of its options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pith.quantization.gptq import GPTQ
from pith.weights.columns import quantized_by_columns, without_dead
from pith.weights.hessian import SecondMoments, inverse_factor

FIXTURE = json.loads((Path(__file__).parent / "gptq.json").read_text())
CASES = {case["name"]: case for case in FIXTURE["cases"]}


def drawn(rows: int = 8, length: int = 150, seed: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, 256, generator=generator) * 0.1
    weight[rows - 1] = weight[rows - 1].abs()
    mix = torch.eye(256) + 0.2 * torch.randn(256, 256, generator=generator)
    inputs = torch.randn(2, length, 256, generator=generator) @ mix
    inputs[..., 7] = 0
    return weight, inputs


def hessian(inputs: torch.Tensor) -> torch.Tensor:
    read = SecondMoments(256)
    for rows in inputs:
        read.add(rows)
    return read.hessian(len(inputs))


def mine(case: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weight, inputs = drawn()
    method = GPTQ(
        bits=case["bits"], group_size=case["group_size"], symmetric=case["symmetric"], mse=case["mse"],
        act_order=case["act_order"],
    )  # fmt: skip
    grid, codes = quantized_by_columns(
        weight,
        hessian(inputs),
        lambda some: method.grid(some, case["bits"]),
        group_size=case["group_size"],
        act_order=case["act_order"],
    )
    return grid.scale, grid.zero, codes


def theirs(case: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    codes = torch.tensor([[int(digit, 16) for digit in row] for row in case["codes"]], dtype=torch.uint8)
    return torch.tensor(case["scale"]), torch.tensor(case["zero"], dtype=torch.float32), codes


def test_the_hessian_and_its_inverse_factor() -> None:
    weight, inputs = drawn()
    found = hessian(inputs)
    torch.testing.assert_close(found.diagonal(), torch.tensor(FIXTURE["hessian_diagonal"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[:4, :4], torch.tensor(FIXTURE["hessian_corner"]), rtol=1e-5, atol=1e-5)
    factor = inverse_factor(without_dead(weight, found)[1])
    torch.testing.assert_close(factor.diagonal(), torch.tensor(FIXTURE["factor_diagonal"]), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["rows", "rows_4", "mse", "groups_128", "groups_32", "act_order", "act_order_groups"])
def test_grids_and_codes(name: str) -> None:
    (scale, zero, codes), (expected_scale, expected_zero, expected) = mine(CASES[name]), theirs(CASES[name])
    torch.testing.assert_close(scale, expected_scale, rtol=1e-4, atol=1e-7)
    assert torch.equal(zero, expected_zero)
    assert torch.equal(codes, expected)


def test_a_symmetric_grid_differs_for_the_row_without_negative_weights_only() -> None:
    (scale, zero, codes), (expected_scale, expected_zero, expected) = (f(CASES["symmetric"]) for f in (mine, theirs))
    torch.testing.assert_close(scale[:-1], expected_scale[:-1])
    assert torch.equal(zero, expected_zero)
    assert torch.equal(codes[:-1], expected[:-1])
    torch.testing.assert_close(scale[-1], 2 * expected_scale[-1])  # theirs ends at 7/15 of the greatest weight
