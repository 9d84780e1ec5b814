"""Ranges made smaller: never worse, and the best of the factors that are tried."""

from __future__ import annotations

import pytest
import torch

from pith.weights.grid import fit_grid
from pith.weights.shrink import shrunk


@pytest.mark.parametrize(("group", "symmetric"), [(0, False), (16, True), (24, False)])
def test_every_group_gets_its_best_factor(group: int, symmetric: bool) -> None:
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    weight[:, ::16] *= 6
    grid = fit_grid(weight, 3, group, symmetric)
    found = shrunk(grid, weight)
    assert torch.equal(found.zero, grid.zero)
    size = group or 64
    for row in range(3):
        for index, begin in enumerate(range(0, 64, size)):
            own, errors = weight[row, begin : begin + size], []
            for step in range(80):
                scale = grid.scale[row, index] * (1 - step / 100)
                codes = ((own / scale).round() + grid.zero[row, index]).clamp(0, 7)
                errors.append(float(((codes - grid.zero[row, index]) * scale - own).abs().pow(2.4).sum()))
            best = min(range(80), key=lambda step: errors[step])
            assert found.scale[row, index] == pytest.approx(float(grid.scale[row, index]) * (1 - best / 100), rel=1e-5)
    assert (found.scale < grid.scale).any()


def test_weights_on_the_grid_keep_it() -> None:
    weight = torch.tensor([[-3.0, -1.0, 0.0, 4.0]])
    assert torch.equal(shrunk(fit_grid(weight, 3, 0), weight).scale, fit_grid(weight, 3, 0).scale)
