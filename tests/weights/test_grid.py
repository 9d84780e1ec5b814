from __future__ import annotations

import pytest
import torch

from pith.core import InputError
from pith.weights import Grid, fit_grid
from pith.weights.grid import fitting_group


def weight(out: int = 6, inputs: int = 50) -> torch.Tensor:
    given = torch.randn(out, inputs, generator=torch.Generator().manual_seed(0))
    given[0] = given[0].abs() + 1  # a row that does not reach 0
    given[1] = -given[1].abs() - 1
    given[2] = 0
    return given


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [0, 1, 7, 16, 50, 64])
@pytest.mark.parametrize("symmetric", [False, True])
def test_codes_are_the_nearest_of_the_formula(bits: int, group_size: int, symmetric: bool) -> None:
    given = weight()
    grid = fit_grid(given, bits, group_size, symmetric)
    found, most = grid.codes(given), 2**bits - 1
    size = min(group_size, 50) or 50
    for row in range(6):
        for start in range(0, 50, size):
            part = given[row, start : start + size].double()
            low, high = min(part.min().item(), 0.0), max(part.max().item(), 0.0)
            if symmetric:
                low, high = -max(-low, high), max(-low, high)
            if low == high:
                low, high = -1.0, 1.0
            scale = (high - low) / most
            # a group of zeros only lies halfway between two zeros: float32 decides
            zero = 2 ** (bits - 1) if symmetric else int(torch.round(torch.tensor(-low) / torch.tensor(scale)))
            expected = torch.clamp(torch.round(part / scale) + zero, 0, most)
            close = (part / scale - torch.round(part / scale)).abs() < 0.499  # ties fall as they fall in float32
            assert torch.equal(found[row, start : start + size].double()[close], expected[close])
    values, step = grid.values(found), grid.spread(50)[0]
    assert torch.equal(grid.nearest(given), values)
    inside = (found > 0) & (found < most)
    assert ((values - given).abs() <= 0.501 * step)[inside].all()
    assert torch.equal(values[2], torch.zeros(50))


def test_a_column_is_that_of_the_whole() -> None:
    given = weight()
    grid = fit_grid(given, 3, 16)
    for index in (0, 15, 16, 49):
        codes, values = grid.column(index, given[:, index])
        assert torch.equal(codes.to(torch.uint8), grid.codes(given)[:, index])
        assert torch.equal(values, grid.nearest(given)[:, index])


def test_scales_are_those_that_will_be_read() -> None:
    grid = fit_grid(weight(), 4, 16).stored_as(torch.bfloat16)
    assert torch.equal(grid.scale, grid.scale.bfloat16().float())
    tiny = fit_grid(torch.full((2, 16), 1e-9), 4, 16).stored_as(torch.float16)
    assert (tiny.scale > 0).all()
    assert torch.isfinite(tiny.nearest(torch.full((2, 16), 1e-9))).all()


def test_a_zero_may_lie_between_codes() -> None:
    grid = Grid(2, torch.ones(1, 1), torch.tensor([[1.4]]), 8)
    given = torch.tensor([[-1.4, -0.5, 0.1, 0.65, 1.6, 9.0, -9.0, 0.0]])
    nearest = torch.tensor([value - 1.4 for value in range(4)])
    expected = (given.T - nearest).abs().argmin(1).to(torch.uint8)
    assert torch.equal(grid.codes(given)[0], expected)


def test_a_group_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="group_size=-1 makes no sense; allowed is 0 for whole rows, or 1 or more"):
        fit_grid(weight(), 4, -1)


@pytest.mark.parametrize(
    ("inputs", "size"),
    [
        ([576, 1536], 64), ([256, 1024], 128), ([96], 32), ([72, 216], 72), ([72, 96], 24), ([896, 4864], 128),
        ([50, 96], 128), ([7], 128),
    ],
)  # fmt: skip
def test_the_fitting_group_divides_all_inputs(inputs: list[int], size: int) -> None:
    assert fitting_group(inputs) == size
    assert fitting_group([256], most=64) == 64
