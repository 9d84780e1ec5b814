"""Rounding to nearest is the equation, value by value."""

from __future__ import annotations

import pytest
import torch

from contracts.compressors import llama
from pith.core import ModelError
from pith.quantization.rtn import RTN
from pith.weights import dense_of


def naive(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """scale (code - zero), one weight after another."""
    rounded, most = torch.empty_like(weight), 2**bits - 1
    for i, row in enumerate(weight):
        for begin in range(0, len(row), group):
            part = row[begin : begin + group]
            low, high = min(float(part.min()), 0.0), max(float(part.max()), 0.0)
            scale = (high - low) / most
            zero = round(-low / scale)
            for j, value in enumerate(part):
                code = min(max(round(float(value) / scale) + zero, 0), most)
                rounded[i, begin + j] = scale * (code - zero)
    return rounded


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_every_weight_is_at_the_nearest_value_of_its_groups_grid(bits: int) -> None:
    model = llama()
    smaller = RTN(bits=bits, group_size=32).compress(model)
    name = "model.layers.0.self_attn.q_proj"
    weight = model.get_submodule(name).weight.detach()
    assert torch.allclose(dense_of(smaller.get_submodule(name)), naive(weight, bits, 32), atol=1e-5)


def test_it_rounds_what_is_named_and_refuses_where_nothing_is_left() -> None:
    model = llama()
    smaller = RTN(bits={"*.down_proj": 2}).compress(model)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            same = smaller.get_submodule(name).__class__ is torch.nn.Linear
            assert same == (not name.endswith("down_proj"))
    with pytest.raises(ModelError, match="no plain linear layer"):
        RTN(skip="*").compress(model)
