"""Kronecker curvature gives the solutions that the dense Hessian gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pith.core import ModelError
from pith.pruning.kronecker import Layer, structured_threshold, threshold


def second_moments(size: int, seed: int) -> Tensor:
    rows = torch.randn(3 * size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows.T @ rows / len(rows)


WEIGHT = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
A, G = second_moments(6, 1), second_moments(5, 2)


def damped(matrix: Tensor, share: float) -> Tensor:
    return matrix + share * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=torch.float64)


def dense_solution(removed: Tensor, damping: tuple[float, float]) -> tuple[Tensor, float]:
    """Of all weights that are zero where they are removed, those that cost least under the dense Hessian; and the cost.

    Without Lagrange multipliers: what is kept moves until the quadratic's gradient in it is zero.
    """
    hessian = torch.kron(damped(G, damping[1]), damped(A, damping[0]))
    gone, kept = removed.flatten().nonzero().flatten(), (~removed).flatten().nonzero().flatten()
    change = torch.zeros(WEIGHT.numel(), dtype=torch.float64)
    change[gone] = -WEIGHT.flatten()[gone]
    change[kept] = torch.linalg.solve(hessian[kept][:, kept], -hessian[kept][:, gone] @ change[gone])
    return WEIGHT + change.view_as(WEIGHT), float(change @ hessian @ change / 2)


def mask_of(*places: tuple[int, int]) -> Tensor:
    mask = torch.zeros(5, 6, dtype=torch.bool)
    for row, column in places:
        mask[row, column] = True
    return mask


@pytest.mark.parametrize("damping", [(0.0, 0.0), (0.01, 0.1)])
@pytest.mark.parametrize("rows", [[], [1], [0, 3, 4]])
@pytest.mark.parametrize("columns", [[], [2], [0, 1, 5]])
def test_rows_and_columns_together_are_the_dense_solution(
    rows: list[int], columns: list[int], damping: tuple[float, float]
) -> None:
    row_mask, column_mask = torch.zeros(5, dtype=torch.bool), torch.zeros(6, dtype=torch.bool)
    row_mask[rows], column_mask[columns] = True, True
    expected, _ = dense_solution(row_mask[:, None] | column_mask, damping)
    assert torch.allclose(Layer.of(WEIGHT, A, G, damping).without(row_mask, column_mask), expected, atol=1e-10)


@pytest.mark.parametrize("damping", [(0.0, 0.0), (0.01, 0.1)])
def test_single_weights_are_the_dense_solution(damping: tuple[float, float]) -> None:
    removed = mask_of((0, 1), (0, 4), (2, 2), (3, 0), (3, 1), (3, 5), (4, 4))
    expected, _ = dense_solution(removed, damping)
    found = Layer.of(WEIGHT, A, G, damping).without_elements(removed, together=100)
    assert torch.allclose(found, expected, atol=1e-10)


def test_removing_few_weights_at_once_costs_more_than_all_together() -> None:
    removed = mask_of((0, 1), (0, 4), (2, 2), (3, 0), (3, 1), (3, 5), (4, 4))
    layer, hessian = Layer.of(WEIGHT, A, G, (0.0, 0.0)), torch.kron(G, A)
    costs = []
    for together in (1, 4, 100):
        change = (layer.without_elements(removed, together) - WEIGHT).flatten()
        costs.append(float(change @ hessian @ change))
    assert costs[0] > costs[1] > costs[2]


def test_costs_are_those_of_the_dense_hessian() -> None:
    layer = Layer.of(WEIGHT, A, G, (0.0, 0.0))
    elements, rows, columns = layer.element_costs(), layer.row_costs(), layer.column_costs()
    for row in range(5):
        mask = torch.zeros(5, 6, dtype=torch.bool)
        mask[row] = True
        assert float(rows[row]) == pytest.approx(dense_solution(mask, (0.0, 0.0))[1])
        for column in range(6):
            cost = dense_solution(mask_of((row, column)), (0.0, 0.0))[1]
            assert float(elements[row, column]) == pytest.approx(cost)
    for column in range(6):
        mask = torch.zeros(5, 6, dtype=torch.bool)
        mask[:, column] = True
        assert float(columns[column]) == pytest.approx(dense_solution(mask, (0.0, 0.0))[1])


def test_what_is_dead_costs_nothing_and_stays_dead() -> None:
    weight, a, g = WEIGHT.clone(), A.clone(), G.clone()
    weight[2], weight[:, 4] = 0, 0
    a[1], a[:, 1] = 0, 0
    layer = Layer.of(weight, a, g, (0.01, 0.01))
    assert layer.row_costs()[2] == 0
    assert layer.column_costs()[[1, 4]].tolist() == [0, 0]
    assert (layer.row_costs() > 0).sum() == 4
    row_mask, column_mask = torch.tensor([True, False, True, False, False]), torch.zeros(6, dtype=torch.bool)
    after = layer.without(row_mask, column_mask)
    assert not after[2].any()
    assert not after[:, [1, 4]].any()
    alive = Layer.of(
        WEIGHT[[0, 1, 3, 4]][:, [0, 2, 3, 5]],
        A[[0, 2, 3, 5]][:, [0, 2, 3, 5]],
        G[[0, 1, 3, 4]][:, [0, 1, 3, 4]],
        (0.01, 0.01),
    )
    alone = alive.without(torch.tensor([True, False, False, False]), torch.zeros(4, dtype=torch.bool))
    assert torch.allclose(after[[0, 1, 3, 4]][:, [0, 2, 3, 5]], alone)


def removed_weights(costs: list[tuple[Tensor, Tensor]], most: float) -> int:
    return sum(int(((rows <= most)[:, None] | (columns <= most)).sum()) for rows, columns in costs)


@pytest.mark.parametrize("sparsity", [0.0, 0.05, 0.2, 0.5, 0.9, 1.0])
def test_the_structured_threshold_is_the_last_within_the_share(sparsity: float) -> None:
    generator = torch.Generator().manual_seed(3)
    costs = [(torch.rand(r, generator=generator), torch.rand(c, generator=generator)) for r, c in [(7, 9), (4, 12)]]
    total = 7 * 9 + 4 * 12
    most = structured_threshold(costs, sparsity)
    assert removed_weights(costs, most) <= sparsity * total
    dearer = sorted(c for c in torch.cat([torch.cat(pair) for pair in costs]).tolist() if c > most)
    if dearer:
        assert removed_weights(costs, dearer[0]) > sparsity * total


def test_the_threshold_of_single_weights_is_the_last_within_the_share() -> None:
    costs = [torch.tensor([5.0, 1.0, 3.0]), torch.tensor([2.0, 4.0])]
    assert threshold(costs, 0.4) == 2.0
    assert threshold(costs, 0.39) == 1.0
    assert threshold(costs, 0.1) < 0
    assert threshold(costs, 1.0) == 5.0


def test_a_layer_of_zeros_costs_nothing() -> None:
    layer = Layer.of(torch.zeros(5, 6), A, G, (0.01, 0.01))
    assert not torch.cat([layer.row_costs(), layer.column_costs()]).any()
    everything = torch.ones(5, dtype=torch.bool), torch.ones(6, dtype=torch.bool)
    assert not layer.without(*everything).any()
    assert not layer.without_elements(torch.ones(5, 6, dtype=torch.bool), 4).any()


def test_curvature_without_an_inverse_is_refused() -> None:
    flat = torch.ones(6, 6)
    with pytest.raises(ModelError, match=r"6 rows cannot be inverted with damping=0.0; allowed is a larger$"):
        Layer.of(WEIGHT, flat - 2 * torch.eye(6) * 0.1, G, (0.0, 0.0))
