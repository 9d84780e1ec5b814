"""Columns that make up for the errors of those before them, against the equations written naively."""

from __future__ import annotations

import pytest
import torch

from pith.weights.columns import by_columns, column_blocks, quantized_by_columns, without_dead
from pith.weights.grid import Grid, fit_grid
from pith.weights.hessian import inverse_factor


def drawn(out: int, inputs: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and the Hessian of inputs that depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.eye(inputs) + 0.5 * torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    rows = torch.randn(4 * inputs, inputs, generator=generator) @ mix
    return torch.randn(out, inputs, generator=generator), rows.T @ rows / len(rows)


def naive(weight: torch.Tensor, hessian: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Of what is left of the Hessian a new inverse for every column, as in optimal brain surgery."""
    left = weight.double().clone()
    damped = (hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian))).double()
    for index in range(weight.shape[1]):
        inverse = damped[index:, index:].inverse()
        value = grid.column(index, left[:, index].float())[1].double()
        error = (left[:, index] - value) / inverse[0, 0]
        left[:, index:] -= error[:, None] * inverse[0]
        left[:, index] = value
    return left.float()


def loss(weight: torch.Tensor, values: torch.Tensor, hessian: torch.Tensor) -> float:
    return float(((weight - values) @ hessian * (weight - values)).sum())


@pytest.mark.parametrize(("inputs", "block"), [(37, 8), (64, 64), (40, 128), (1, 4)])
def test_blocks_of_columns_give_what_one_column_after_another_gives(inputs: int, block: int) -> None:
    weight, hessian = drawn(5, inputs)
    grid = fit_grid(weight, 3, 0)
    factor = inverse_factor(hessian)
    found = by_columns(weight, factor, column_blocks(inputs, 0, block), lambda j, left: grid.column(j, left[:, 0])[1])
    torch.testing.assert_close(found, naive(weight, hessian, grid), rtol=1e-4, atol=1e-4)


def test_what_keeps_its_value_changes_nothing_else() -> None:
    weight, hessian = drawn(3, 20)
    before = weight.clone()
    found = by_columns(weight, inverse_factor(hessian), column_blocks(20), lambda j, left: left[:, 0].clone())
    assert torch.equal(found, before)
    assert torch.equal(weight, before)


@pytest.mark.parametrize(("inputs", "group", "block"), [(300, 32, 128), (300, 48, 128), (300, 200, 128), (90, 0, 128)])
def test_a_group_lies_in_one_block_or_begins_one(inputs: int, group: int, block: int) -> None:
    found = list(column_blocks(inputs, group, block))
    assert [index for begin, end in found for index in range(begin, end)] == list(range(inputs))
    assert all(end - begin <= block for begin, end in found)
    for first in range(0, inputs, group or inputs):
        begin, end = next(one for one in found if one[0] <= first < one[1])
        assert first == begin or first + group <= end or end == inputs


@pytest.mark.parametrize("group", [8, 24, 200])
def test_a_group_is_fitted_to_what_is_left_of_it(group: int) -> None:
    weight, hessian = drawn(4, 240)
    grid, codes = quantized_by_columns(weight, hessian, lambda some: fit_grid(some, 3, group), group_size=group)
    left, scales, zeros = weight.clone(), [], []
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(240)
    factor = torch.linalg.cholesky(damped.inverse(), upper=True)
    for index in range(240):
        if index % group == 0:
            own = fit_grid(left[:, index : index + group], 3, group)
            scales.append(own.scale)
            zeros.append(own.zero)
        value = own.column(0, left[:, index])[1]
        left[:, index:] -= ((left[:, index] - value) / factor[index, index])[:, None] * factor[index, index:]
        left[:, index] = value
    torch.testing.assert_close(grid.scale, torch.cat(scales, dim=1), rtol=1e-3, atol=1e-5)
    assert grid.values(codes).sub(left).abs().gt(1e-3).float().mean() < 0.01  # ties may fall either way


@pytest.mark.parametrize("group", [0, 16])
def test_the_order_of_what_is_read_most(group: int) -> None:
    weight, hessian = drawn(6, 64)
    spread = torch.linspace(3, 0.1, 64)[torch.randperm(64, generator=torch.Generator().manual_seed(1))]
    hessian = hessian * spread[:, None] * spread
    grid, codes = quantized_by_columns(
        weight, hessian, lambda some: fit_grid(some, 3, group), group_size=group, act_order=True
    )
    assert torch.equal(grid.scale, fit_grid(weight, 3, group).scale)  # groups of neighbours, none of which has changed
    order = hessian.diagonal().argsort(descending=True)
    wide = Grid(3, *(one[:, order] for one in grid.spread(64)), group_size=1)
    expected = naive(weight[:, order], hessian[order][:, order], wide)
    torch.testing.assert_close(grid.values(codes)[:, order], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("group", [0, 32])
def test_the_output_loses_less_than_by_rounding(group: int, act_order: bool) -> None:
    weight, hessian = drawn(16, 96, seed=3)
    grid, codes = quantized_by_columns(
        weight, hessian, lambda some: fit_grid(some, 2, group), group_size=group, act_order=act_order
    )
    nearest = fit_grid(weight, 2, group).nearest(weight)
    assert loss(weight, grid.values(codes), hessian) < 0.9 * loss(weight, nearest, hessian)


def test_inputs_that_are_always_0_get_the_weight_0() -> None:
    weight, hessian = drawn(3, 10)
    hessian[4], hessian[:, 4] = 0, 0
    kept, alive = without_dead(weight, hessian)
    assert kept[:, 4].tolist() == [0, 0, 0]
    assert alive[4, 4] == 1
    assert hessian[4, 4] == 0
    grid, codes = quantized_by_columns(weight, hessian, lambda some: fit_grid(some, 4, 0))
    assert torch.equal(grid.scale, fit_grid(weight, 4, 0).scale)
    assert grid.values(codes)[:, 4].abs().max() == 0
