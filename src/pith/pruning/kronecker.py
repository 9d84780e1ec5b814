"""Curvature as a Kronecker product: what removing weights of a layer costs, and how the others make up for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pith.core import ModelError


@dataclass(frozen=True)
class Layer:
    """A layer's weights and the curvature of the loss in them, G (x) A; what is dead already is left out.

    Dead are rows and columns of zeros only, and those that no input or gradient ever reached: they cost nothing.

    Attributes:
        weight: what is alive.
        a, g: the second moments of inputs and of the gradients of outputs.
        a_inverse, g_inverse: their inverses, damped.
        rows, columns: which of all outputs and inputs are alive.
    """

    weight: Float[Tensor, "row column"]
    a: Float[Tensor, "column column"]
    g: Float[Tensor, "row row"]
    a_inverse: Float[Tensor, "column column"]
    g_inverse: Float[Tensor, "row row"]
    rows: Bool[Tensor, " out"]
    columns: Bool[Tensor, " in"]

    @classmethod
    def of(
        cls,
        weight: Float[Tensor, "out in"],
        a: Float[Tensor, "in in"],
        g: Float[Tensor, "out out"],
        damping: tuple[float, float],
    ) -> Layer:
        """The layer in double precision; the damping of A and of G is a share of the mean of their diagonals.

        Raises:
            ModelError: so little damping does not do.
        """
        weight, a, g = weight.double(), a.double(), g.double()
        rows, columns = weight.any(dim=1) & (g.diagonal() > 0), weight.any(dim=0) & (a.diagonal() > 0)
        weight, a, g = weight[rows][:, columns], a[columns][:, columns], g[rows][:, rows]
        return cls(weight, a, g, _inverse(a, damping[0]), _inverse(g, damping[1]), rows, columns)

    def element_costs(self) -> Float[Tensor, "out in"]:
        """w_rc^2 / (2 [G^-1]_rr [A^-1]_cc)"""
        costs = self.weight.square() / torch.outer(self.g_inverse.diagonal(), self.a_inverse.diagonal()) / 2
        return self._whole(costs)

    def row_costs(self) -> Float[Tensor, " out"]:
        """w_r A w_r^T / (2 [G^-1]_rr)"""
        costs = ((self.weight @ self.a) * self.weight).sum(dim=1) / self.g_inverse.diagonal() / 2
        return costs.new_zeros(len(self.rows)).masked_scatter(self.rows, costs)

    def column_costs(self) -> Float[Tensor, " in"]:
        """w_c^T G w_c / (2 [A^-1]_cc)"""
        costs = ((self.g @ self.weight) * self.weight).sum(dim=0) / self.a_inverse.diagonal() / 2
        return costs.new_zeros(len(self.columns)).masked_scatter(self.columns, costs)

    def without(self, rows: Bool[Tensor, " out"], columns: Bool[Tensor, " in"]) -> Float[Tensor, "out in"]:
        """The weights with whole rows and columns removed, the others where the loss grows least.

        Both together: the columns are removed from what the removal of the rows left.
        """
        rows, columns = rows[self.rows], columns[self.columns]
        weight = self.weight - _share(self.g_inverse, rows) @ self.weight[rows]
        weight = weight - weight[:, columns] @ _share(self.a_inverse, columns).T
        return self._whole(weight.masked_fill(rows[:, None] | columns, 0))

    def without_elements(self, removed: Bool[Tensor, "out in"], together: int) -> Float[Tensor, "out in"]:
        """The weights with single ones removed, the others where the loss grows least.

        Args:
            removed: which.
            together: so many are removed at once, in whole rows; a row with more of them is removed at once too.
        """
        removed = removed[self.rows][:, self.columns]
        weight = self.weight.clone()
        for rows in _chunks(removed.sum(dim=1).tolist(), together):
            at_row, at_column = removed[rows].nonzero(as_tuple=True)
            among = self.g_inverse[rows, rows][at_row][:, at_row] * self.a_inverse[at_column][:, at_column]
            pull = torch.zeros_like(weight[rows])
            pull[at_row, at_column] = torch.linalg.solve(among, weight[rows][at_row, at_column])
            weight -= self.g_inverse[:, rows] @ (pull @ self.a_inverse)
        return self._whole(weight.masked_fill(removed, 0))

    def _whole(self, alive: Float[Tensor, "row column"]) -> Float[Tensor, "out in"]:
        mask = torch.outer(self.rows, self.columns)
        return alive.new_zeros(mask.shape).masked_scatter(mask, alive)


def _inverse(matrix: Float[Tensor, "n n"], damping: float) -> Float[Tensor, "n n"]:
    damped = matrix + torch.eye(len(matrix)).to(matrix) * (damping * matrix.diagonal().mean())
    factor, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        raise ModelError(
            f"curvature of {len(matrix)} rows cannot be inverted with damping={damping}; allowed is a larger"
        )
    return torch.cholesky_inverse(factor)


def _share(inverse: Float[Tensor, "n n"], removed: Bool[Tensor, " n"]) -> Float[Tensor, "n removed"]:
    """How much of each removed one every other takes over: F^-1 E (E^T F^-1 E)^-1."""
    taken: Tensor = torch.linalg.solve(inverse[removed][:, removed], inverse[:, removed], left=False)
    return taken


def _chunks(counts: Sequence[int], together: int) -> Iterator[slice]:
    """Neighbouring rows that have at most so many elements together, or are one row that has more."""
    start = found = 0
    for row, count in enumerate(counts):
        if found and found + count > together:
            yield slice(start, row)
            start, found = row, 0
        found += count
    if found:
        yield slice(start, len(counts))


def structured_threshold(costs: Sequence[tuple[Float[Tensor, " _"], Float[Tensor, " _"]]], sparsity: float) -> float:
    """The cost up to which rows and columns of all layers are removed, so that at most a share of the weights is.

    Args:
        costs: of the rows and of the columns of each layer.
        sparsity: the share.

    Returns:
        The threshold; below 0 where not even the cheapest row or column may go.
    """
    losses, gains, total = [], [], 0
    for rows, columns in costs:
        both, order = torch.cat([rows, columns]).sort(stable=True)
        is_row = order < len(rows)
        gone_rows, gone_columns = is_row.cumsum(0), (~is_row).cumsum(0)
        removed = gone_rows * len(columns) + gone_columns * len(rows) - gone_rows * gone_columns
        losses.append(both)
        gains.append(removed.diff(prepend=removed.new_zeros(1)))
        total += len(rows) * len(columns)
    merged, order = torch.cat(losses).sort(stable=True)
    return _last(merged, torch.cat(gains)[order].cumsum(0), int(sparsity * total))


def threshold(costs: Sequence[Float[Tensor, " _"]], sparsity: float) -> float:
    """The cost up to which a share of things that weigh alike is removed; below 0 where none may go."""
    merged = torch.cat(list(costs)).sort(stable=True).values
    return _last(merged, torch.arange(1, len(merged) + 1, device=merged.device), int(sparsity * len(merged)))


def _last(costs: Tensor, removed: Tensor, most: int) -> float:
    within = int((removed <= most).sum())
    return float(costs[within - 1]) if within else -1.0
