"""SparseGPT against numbers that the authors' code gave: which weights go, and what becomes of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pith.pruning.sparse_gpt import SparseGPT
from pith.weights.hessian import SecondMoments

FIXTURE = json.loads((Path(__file__).parent / "sparse_gpt.json").read_text())


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(12)
    weight = torch.randn(12, 256, generator=generator) * 0.1
    weight[11] = weight[11].abs()
    mix = torch.eye(256) + 0.2 * torch.randn(256, 256, generator=generator)
    inputs = torch.randn(2, 48, 256, generator=generator) @ mix
    inputs[..., 7] = 0
    return weight, inputs


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: case["pattern"])
def test_mask_and_weights(case: dict[str, Any]) -> None:
    weight, inputs = drawn()
    read = SecondMoments(256)
    for rows in inputs:
        read.add(rows)
    found = SparseGPT(sparsity=0.5, pattern=case["pattern"]).pruned(weight, read.hessian(len(inputs)))
    assert ["".join(str(int(zero)) for zero in row) for row in found == 0] == case["mask"]
    torch.testing.assert_close(found[:, ::16], torch.tensor(case["values"]), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.norm(dim=1), torch.tensor(case["norms"]), rtol=1e-4, atol=1e-6)
