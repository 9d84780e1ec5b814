"""The suite finds a wrong shape, in the calls that it checks."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

import shapes
from pith.weights.grid import grouped


@pytest.mark.parametrize("before", [0, shapes.FIRST - 1, 15])
def test_a_wrong_shape_is_found(before: int) -> None:
    for _ in range(before):
        grouped(torch.zeros(2, 4), 2)
    with pytest.raises(jaxtyping.TypeCheckError):
        grouped(torch.zeros(2, 4, 1), 2)


def test_which_calls_are_checked() -> None:
    assert [n for n in range(1, 70) if shapes.is_checked(n)] == [*range(1, shapes.FIRST + 1), 8, 16, 32, 64]
