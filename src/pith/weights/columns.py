"""Weights chosen column by column, the columns that follow making up for each error: GPTQ, SparseGPT and their kin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pith.weights.grid import Grid
from pith.weights.hessian import inverse_factor

BLOCK = 128
"""Columns after which those beyond are made up for at once, the authors' number."""

Choose = Callable[[int, Float[Tensor, "out left"]], Float[Tensor, " out"]]
"""Is given the index of a column, and the weights that are left from it on; gives the values that the column takes.

What is left is up to date to the end of the block that the column is in; at a block's beginning all of it is.
"""

Fit = Callable[[Float[Tensor, "out in"]], Grid]
"""Gives the grid for weights."""


def by_columns(
    weight: Float[Tensor, "out in"],
    factor: Float[Tensor, "in in"],
    blocks: Iterator[tuple[int, int]],
    choose: Choose,
) -> Float[Tensor, "out in"]:
    """Takes a value for every weight, column by column, the error of each column made up for by those that follow.

        e = (w_j - q_j) / U_jj,    w_k = w_k - e U_jk for every k > j,    H^-1 = U^T U

    Args:
        weight: what is to be approximated.
        factor: U, as `inverse_factor` gives it.
        blocks: first column and the one after the last of every block; see `column_blocks`.
        choose: says which values a column takes.
    """
    left = weight.float().T.contiguous()  # a column of weights is a row here, and lies in one piece
    left = left.clone() if left.data_ptr() == weight.data_ptr() else left
    for begin, end in blocks:
        errors = torch.empty_like(left[begin:end])
        for index in range(begin, end):
            taken = choose(index, left[index:].T)
            error = torch.div(left[index] - taken, factor[index, index], out=errors[index - begin])
            left[index] = taken
            left[index + 1 : end].addr_(factor[index, index + 1 : end], error, alpha=-1)
        left[end:].addmm_(factor[begin:end, end:].T, errors, alpha=-1)
    return left.T


def column_blocks(inputs: int, group_size: int = 0, block: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Blocks of at most `block` columns: as many whole groups as fit, or pieces of a group that is larger."""
    whole = (block // group_size * group_size or group_size) if group_size else inputs
    for begin in range(0, inputs, whole):
        end = min(begin + whole, inputs)
        for piece in range(begin, end, block):
            yield piece, min(piece + block, end)


def without_dead(
    weight: Float[Tensor, "out in"], hessian: Float[Tensor, "in in"]
) -> tuple[Float[Tensor, "out in"], Float[Tensor, "in in"]]:
    """The two with inputs that were always 0 taken out: their weights become 0, their Hessian's diagonal 1."""
    dead = hessian.diagonal() == 0
    return weight.float().masked_fill(dead, 0), hessian + torch.diag(dead.to(hessian))


def quantized_by_columns(
    weight: Float[Tensor, "out in"],
    hessian: Float[Tensor, "in in"],
    fit: Fit,
    *,
    group_size: int = 0,
    act_order: bool = False,
    damping: float = 0.01,
) -> tuple[Grid, UInt8[Tensor, "out in"]]:
    """Codes for a weight that keep what the layer gives, and the grid that says what they stand for.

    The grid of whole rows comes from the weight as it is; that of a group from what is left of it when its first column
    is reached, or, with `act_order`, from the weight before any column was.

    Args:
        weight: of a linear layer.
        hessian: of the squared error of what the layer gives.
        fit: gives the grid of a weight, or of one group of it.
        group_size: inputs of a row that share a grid; 0 for the whole row.
        act_order: whether columns are taken by what they read, most first, and not in their order.
        damping: share of the mean of the Hessian's diagonal that is added to it.
    """
    inputs = weight.shape[1]
    grouped = 0 < group_size < inputs
    grid = None if grouped else fit(weight.float())
    work, hessian = without_dead(weight, hessian)
    order = hessian.diagonal().argsort(descending=True, stable=True) if act_order else torch.arange(inputs)
    place = order.tolist()
    if act_order:
        grid = grid or fit(work)
        work, hessian = work[:, order], hessian[order][:, order]
    found: list[Grid] = []

    def choose(index: int, left: Float[Tensor, "out left"]) -> Float[Tensor, " out"]:
        if grid is not None:
            return grid.column(place[index], left[:, 0])[1]
        if index % group_size == 0:
            found.append(fit(left[:, :group_size]))
        return found[-1].column(0, left[:, 0])[1]

    dynamic = group_size if grid is None else 0
    values = by_columns(work, inverse_factor(hessian, damping), column_blocks(inputs, dynamic), choose)
    if grid is None:
        scale, zero = (torch.cat([getattr(one, name) for one in found], dim=1) for name in ("scale", "zero"))
        grid = replace(found[0], scale=scale, zero=zero)
    back = order.argsort().to(values.device)
    return grid, grid.codes(values[:, back])
