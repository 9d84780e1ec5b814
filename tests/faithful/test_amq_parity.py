"""AMQ measures, counts, predicts and pins as the authors' own code does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pith.quantization.amq import divergence, pinned_layers
from pith.quantization.rbf import CubicRBF
from pith.weights.size import packed_layer_bytes

FIXTURE = json.loads((Path(__file__).parent / "amq.json").read_text())


def test_jensen_shannon_divergence() -> None:
    case = FIXTURE["jsd"]
    generator = torch.Generator().manual_seed(case["seed"])
    dense = torch.randn(case["shape"], generator=generator) * 2
    other = dense + torch.randn(case["shape"], generator=generator)
    assert divergence(dense, other).mean().item() == pytest.approx(case["value"], rel=1e-5)


def test_average_bits() -> None:
    case = FIXTURE["bits"]
    held = sum(
        8 * packed_layer_bytes(out, inputs, width, case["group_size"], torch.bfloat16)
        for (out, inputs), width in case["layers"]
    )
    weights = sum(out * inputs for (out, inputs), _ in case["layers"])
    assert held / weights == pytest.approx(case["value"])


def test_predictor() -> None:
    case = FIXTURE["rbf"]
    points, asked = (torch.tensor(case[name]) / 2 for name in ("points", "asked"))
    predict = CubicRBF.through(points, torch.tensor(case["values"], dtype=torch.float64))
    assert torch.allclose(predict(asked), torch.tensor(case["predicted"], dtype=torch.float64), atol=1e-5)


def test_pinned_layers() -> None:
    case = FIXTURE["pinned"]
    found = pinned_layers(torch.tensor(list(case["sensitivity"].values())), case["threshold"])
    assert [name for name, pinned in zip(case["sensitivity"], found.tolist(), strict=True) if pinned] == case["names"]
