"""Ranges of grids made smaller where that comes nearer to the weights."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pith.weights.grid import Grid


def shrunk(
    grid: Grid, weight: Float[Tensor, "out in"], least: float = 0.2, steps: int = 100, power: float = 2.4
) -> Grid:
    """The grid with the range of every group times the factor with which it comes nearest to the weights.

        argmin over p in 1, 1 - 1/steps, ... above `least` of the sum of |w - nearest_p(w)|^power

    Values beyond the range get its ends. Of equally good factors the largest is taken.

    Args:
        grid: that reaches from the least to the greatest weight, with whole zeros.
        weight: what it is for.
        least: no factor is as small.
        steps: into how many the range from 0 to 1 is cut.
        power: of the error; that of the authors of GPTQ.
    """
    lacking = -weight.shape[1] % grid.group_size  # filled up with 0, which is on every grid
    groups = torch.unflatten(F.pad(weight.float(), (0, lacking)), 1, (-1, grid.group_size))
    zero = grid.zero.unsqueeze(-1)
    best, factor = torch.full_like(grid.scale, float("inf")), torch.ones_like(grid.scale)
    for step in range(round((1 - least) * steps)):
        share = 1 - step / steps
        scale = (grid.scale * share).unsqueeze(-1)
        errors = (groups / scale).round_().add_(zero).clamp_(0, grid.largest).sub_(zero).mul_(scale).sub_(groups)
        error = errors.abs_().pow_(power).sum(-1)
        better = error < best
        best, factor = torch.where(better, error, best), factor.masked_fill(better, share)
    return replace(grid, scale=grid.scale * factor)
