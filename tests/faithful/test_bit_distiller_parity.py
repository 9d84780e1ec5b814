"""BitDistiller against numbers that the authors' code gave: cut bounds, rounding with its gradient, and the loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pith.quantization.bit_distiller import BitDistiller, cakld, straight_through
from pith.weights import fit_grid
from pith.weights.clip import clipped

FIXTURE = json.loads((Path(__file__).parent / "bit_distiller.json").read_text())


def drawn() -> dict[str, torch.Tensor]:
    """The fixture's inputs, in the order in which they were drawn."""
    generator = torch.Generator().manual_seed(11)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    weight = normal(64, 256) * 0.05
    weight[:, ::37] *= 4
    inputs = normal(64, 256) * (torch.rand(256, generator=generator) * 3 + 0.1)
    rounded, factors = normal(4, 128) * 0.05, normal(4, 128)
    student, teacher = normal(2, 8, 32) * 2, normal(2, 8, 32) * 2
    return {
        "weight": weight, "inputs": inputs, "rounded": rounded, "factors": factors, "student": student,
        "teacher": teacher,
    }  # fmt: skip


GIVEN = drawn()


@pytest.mark.parametrize("case", FIXTURE["clips"], ids=lambda c: str(c["bits"]))
def test_where_groups_are_cut(case: dict[str, Any]) -> None:
    weight, inputs = GIVEN["weight"], GIVEN["inputs"]
    cut = clipped(weight, inputs.T @ inputs, lambda w: BitDistiller().grid(w, case["bits"]), "apart")
    groups = cut.unflatten(1, (-1, 128))[:24]
    for mine, theirs in ((groups.amax(-1), case["max"]), (groups.amin(-1), case["min"])):
        bound = torch.tensor(theirs).view(24, 2)
        assert ((mine - bound).abs() <= 1e-4 * bound.abs()).float().mean() > 0.97  # two pairs may be equally good
    assert (cut != weight).any()


@pytest.mark.parametrize("case", FIXTURE["straight"], ids=lambda c: str(c["bits"]))
def test_rounding_and_its_gradient(case: dict[str, Any]) -> None:
    weight = GIVEN["rounded"].clone().requires_grad_()
    values = straight_through(weight, fit_grid(weight, case["bits"], 64))
    (values * GIVEN["factors"]).sum().backward()
    assert weight.grad is not None
    assert torch.allclose(values, torch.tensor(case["values"]).view(4, 128), atol=1e-6)
    assert torch.allclose(weight.grad, torch.tensor(case["gradient"]).view(4, 128), atol=1e-4)


def test_the_loss_and_its_gradient() -> None:
    case = FIXTURE["cakld"]
    student = GIVEN["student"].clone().requires_grad_()
    losses = cakld(student, GIVEN["teacher"], case["gamma"])
    real = torch.ones(2, 8)
    for row, token in case["masked"]:
        real[row, token] = 0
    loss = (losses * real).sum() / 2
    loss.backward()
    assert student.grad is not None
    assert abs(loss.item() - case["loss"]) < 1e-4
    assert torch.allclose(student.grad, torch.tensor(case["gradient"]).view(2, 8, 32), atol=1e-5)
