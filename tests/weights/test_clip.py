"""Cutting groups, against every bound tried one by one."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from pith.weights import Grid, fit_grid
from pith.weights.clip import clipped, makes_logits


def naive(
    weight: torch.Tensor, inputs: torch.Tensor, bits: int, size: int, apart: bool, steps: int = 10
) -> torch.Tensor:
    """Group by group, pair by pair, on the outputs themselves."""
    cut = weight.clone()
    for row in range(len(weight)):
        for start in range(0, weight.shape[1], size):
            group, x = weight[row : row + 1, start : start + size], inputs[:, start : start + size]
            least = torch.inf
            for above in range(steps):
                for below in range(steps) if apart else [above]:
                    high, low = group.max(), group.min()
                    if not apart:
                        high = group.abs().max()
                        low = -high
                    trial = group.clamp(low * (1 - below / 20), high * (1 - above / 20))
                    error = ((fit_grid(trial, bits, 0).nearest(trial) - group) @ x.T).square().sum().item()
                    if error < least * (1 - 1e-6):
                        least, cut[row, start : start + size] = error, trial[0]
    return cut


@pytest.mark.parametrize("sides", ["together", "apart"])
@pytest.mark.parametrize(("bits", "width", "size"), [(2, 32, 16), (3, 21, 8), (3, 12, 0)])
def test_against_every_bound_one_by_one(sides: str, bits: int, width: int, size: int) -> None:
    """With a last group that is not full, and a whole row."""
    generator = torch.Generator().manual_seed(width)
    weight = torch.randn(5, width, generator=generator)
    weight[:, ::7] *= 3
    inputs = torch.randn(40, width, generator=generator)
    fit = partial(fit_grid, bits=bits, group_size=size)
    cut = clipped(weight, inputs.T @ inputs, fit, sides)  # type: ignore[arg-type]
    assert torch.allclose(cut, naive(weight, inputs, bits, size or width, sides == "apart"), atol=1e-6)
    assert (cut != weight).any()


def test_the_error_is_never_more_than_without_cutting() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(8, 64, generator=generator), torch.randn(100, 64, generator=generator)

    def error(one: torch.Tensor) -> float:
        parts = (fit(one).nearest(one) - weight).unflatten(1, (-1, 16)), inputs.unflatten(1, (-1, 16))
        return torch.einsum("ogi,tgi->tog", *parts).square().sum().item()

    def fit(one: torch.Tensor) -> Grid:
        return fit_grid(one, 2, 16)

    moments = inputs.T @ inputs
    together, apart = (clipped(weight, moments, fit, sides) for sides in ("together", "apart"))
    assert error(apart) < error(together) < error(weight)


def test_groups_of_zeros_and_of_one_sign_stay_finite() -> None:
    weight = torch.zeros(2, 16)
    weight[1] = torch.linspace(1, 2, 16)
    cut = clipped(weight, torch.eye(16), partial(fit_grid, bits=4, group_size=8), "apart")
    assert torch.equal(cut[0], weight[0])
    assert cut.isfinite().all()


def test_queries_and_keys_by_name() -> None:
    names = ["self_attn.q_proj", "self_attn.k_proj", "attention.query_key_value", "self_attn.qkv_proj", "attn.c_attn"]
    assert all(map(makes_logits, names))
    assert not any(map(makes_logits, ["self_attn.v_proj", "mlp.down_proj", "block_sparse.w1", "mlp.c_fc"]))
