"""RSQ against numbers that the authors' code gave: tokens' importance, the Hessian with it, codes, rolled sequences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pith.quantization.rsq import RSQ, expanded, scaled
from pith.weights.columns import quantized_by_columns
from pith.weights.hessian import SecondMoments

FIXTURE = json.loads((Path(__file__).parent / "rsq.json").read_text())


def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(14)
    weight = torch.randn(8, 256, generator=generator) * 0.1
    weight[7] = weight[7].abs()
    mix = torch.eye(256) + 0.2 * torch.randn(256, 256, generator=generator)
    inputs = torch.randn(2, 150, 256, generator=generator) @ mix
    inputs[..., 7] = 0
    return weight, inputs, torch.rand(2, 150, generator=torch.Generator().manual_seed(15))


def hessian(weighted: bool) -> torch.Tensor:
    _, inputs, importance = drawn()
    importance = importance / importance.mean(dim=1, keepdim=True)
    read = SecondMoments(256)
    for rows, own in zip(inputs, importance, strict=True):
        read.add(rows, own if weighted else None)
    return read.hessian(len(inputs))


@pytest.mark.parametrize("case", FIXTURE["importance"], ids=lambda case: str(case["least"]))
def test_importance_from_attention(case: dict[str, Any]) -> None:
    logits = torch.randn(2, 4, 24, 24, generator=torch.Generator().manual_seed(13)) * 2
    hidden = ~torch.ones(24, 24, dtype=torch.bool).tril()
    received = logits.masked_fill(hidden, float("-inf")).softmax(-1).sum(dim=(1, 2))
    torch.testing.assert_close(scaled(received, case["least"]), torch.tensor(case["importance"]), rtol=1e-5, atol=1e-6)


def test_the_hessian_counts_tokens_by_their_importance() -> None:
    found = hessian(True)
    torch.testing.assert_close(found.diagonal(), torch.tensor(FIXTURE["hessian_diagonal"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[:4, :4], torch.tensor(FIXTURE["hessian_corner"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: case["name"])
def test_grids_and_codes(case: dict[str, Any]) -> None:
    method = RSQ(bits=case["bits"], group_size=case["group_size"], symmetric=case["symmetric"], mse=case["mse"])
    grid, codes = quantized_by_columns(
        drawn()[0],
        hessian(case["weighted"]),
        lambda some: method.grid(some, case["bits"]),
        group_size=case["group_size"],
    )
    torch.testing.assert_close(grid.scale, torch.tensor(case["scale"]), rtol=1e-4, atol=1e-7)
    assert ["".join(format(int(code), "x") for code in row) for row in codes] == case["codes"]


def test_rolled_sequences() -> None:
    assert expanded(torch.arange(10)[None], 4).tolist() == FIXTURE["expanded"]
