"""HQQ against half-quadratic splitting written group by group."""

from __future__ import annotations

import pytest
import torch

from contracts.tiny import tiny, tokens
from pith.core import ParameterError, PithWarning, Recipe
from pith.quantization.hqq import HQQ
from pith.weights import PackedLinear, linears, stand_ins


def naive(weight: torch.Tensor, bits: int, size: int, norm: float = 0.7, beta: float = 10.0) -> torch.Tensor:
    """The zeros, from lists of groups; all groups stop together."""
    largest = 2**bits - 1
    groups = [row[start : start + size] for row in weight for start in range(0, len(row), size)]
    steps = [float(largest / (group.max() - group.min())) for group in groups]
    zeros = [float(-group.min()) * step for group, step in zip(groups, steps, strict=True)]
    zeros = [float(round(zero)) if bits == 4 else zero for zero in zeros]
    best = torch.inf
    for _ in range(20):
        errors: list[float] = []
        for index, (group, step) in enumerate(zip(groups, steps, strict=True)):
            codes = (group * step + zeros[index]).round().clamp(0, largest)
            rest = group - (codes - zeros[index]) / step
            errors += rest.abs().tolist()
            shrunk = torch.tensor([abs(r) - abs(r) ** (norm - 1) / beta if r else 0.0 for r in rest.tolist()]).clamp(
                min=0
            )
            zeros[index] = float((codes - (group - shrunk * rest.sign()) * step).mean())
        beta *= 1.01
        if sum(errors) / len(errors) >= best:
            break
        best = sum(errors) / len(errors)
    return torch.tensor(zeros).view(len(weight), -1)


@pytest.mark.parametrize(("bits", "width", "size"), [(4, 32, 16), (3, 21, 8), (2, 32, 0)])
def test_the_equations(bits: int, width: int, size: int) -> None:
    """With a last group that is not full, and whole rows."""
    torch.manual_seed(0)
    weight = torch.distributions.StudentT(3.0).sample((6, width)).mul(0.3)
    grid = HQQ(group_size=size).grid(weight, bits)
    assert (grid.zero - naive(weight, bits, size or width)).abs().max() < 1e-3
    assert not torch.equal(grid.zero, grid.zero.round())


def test_codes_are_the_nearest_to_a_zero_between_codes() -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    grid = HQQ().grid(weight, 2)
    scale, zero = grid.spread(64)
    values = (torch.arange(4.0) - zero[..., None]) * scale[..., None]
    nearest = (values - weight[..., None]).abs().argmin(-1)
    assert torch.equal(grid.codes(weight), nearest.to(torch.uint8))


def test_a_few_large_weights_do_not_pull_the_rest_off_the_grid() -> None:
    """Its mean error is below that of rounding, on weights with tails."""
    torch.manual_seed(0)
    weight = torch.distributions.StudentT(3.0).sample((64, 128))
    for bits in (2, 3, 4):
        searched, plain = HQQ(norm=0.7), HQQ(iterations=1, norm=1.0, beta=1e-3)
        errors = [(method.grid(weight, bits).nearest(weight) - weight).abs().mean() for method in (searched, plain)]
        assert errors[0] < errors[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_values_are_those_that_are_read(dtype: torch.dtype) -> None:
    """The zero is what the packed layer's numbers make of it, in the model's dtype."""
    model = tiny("llama_gqa", dtype)
    smaller = HQQ(bits=3, group_size=16).compress(model)
    for name, layer in stand_ins(smaller).items():
        assert isinstance(layer, PackedLinear)
        weight = model.get_submodule(name).weight.detach()  # type: ignore[union-attr,operator]
        grid = HQQ(group_size=16).grid(weight, 3)
        codes = grid.codes(weight.float())
        assert torch.equal(codes, layer.grid_codes()[1])
        step = grid.scale.max() * (1 if dtype == torch.float32 else 2)
        assert (layer.dense().float() - grid.values(codes)).abs().max() < step * torch.finfo(dtype).eps * 8
    assert smaller(tokens(1, 8)).logits.isfinite().all()


def test_eight_bits_are_rounded_and_said() -> None:
    with pytest.warns(PithWarning, match="2 layers of 8 bits have no zero to move"):
        smaller = HQQ(bits={"*.down_proj": 8, "*": 4}).compress(tiny("llama_mha"))
    assert len(stand_ins(smaller)) == len(list(linears(tiny("llama_mha"), "lm_head")))


def test_it_has_no_symmetric_grid() -> None:
    assert "symmetric" not in [parameter.name for parameter in HQQ.parameters()]
    with pytest.raises(ParameterError, match="has no parameter 'symmetric'"):
        Recipe.parse("hqq(symmetric=True)")
