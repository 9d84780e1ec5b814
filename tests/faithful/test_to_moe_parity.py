"""ToMoE's masks, routes and terms of the loss are those of the authors' own code, without its noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pith.pruning.to_moe import (
    OFFSET,
    TEMPERATURE,
    ExpertLayer,
    away,
    covered,
    hard_sigmoid,
    hard_softmax,
    unevenness,
)

FIXTURE = json.loads((Path(__file__).parent / "to_moe.json").read_text())


def drawn() -> tuple[Any, torch.Tensor, torch.Tensor]:
    hidden, width, experts = FIXTURE["sizes"]
    generator = torch.Generator().manual_seed(FIXTURE["seed"])
    layer = ExpertLayer(hidden, width, experts)
    with torch.no_grad():
        layer.router.copy_(torch.randn(experts, hidden, generator=generator))
        layer.decoder.weight.copy_(torch.randn(width, 128, generator=generator) * 0.6)
        layer.norm.weight.copy_(1 + 0.1 * torch.randn(128, generator=generator))
        layer.norm.bias.copy_(0.1 * torch.randn(128, generator=generator))
    state = torch.randn(experts, 128, generator=generator)
    return layer, state, torch.randn(1, 7, hidden, generator=generator)


@torch.no_grad()
def test_masks_of_experts_and_of_tokens() -> None:
    layer, state, x = drawn()
    masks = hard_sigmoid(layer.decode(state))
    assert masks.tolist() == FIXTURE["masks"]
    assert 0 < masks.mean() < 1
    choice, _ = hard_softmax(x @ layer.router.T)
    assert choice[0].argmax(-1).tolist() == FIXTURE["choices"]
    assert hard_sigmoid(layer.decode(choice @ state))[0].tolist() == FIXTURE["token_masks"]
    assert masks.sum(-1).max().item() == FIXTURE["width"]


@torch.no_grad()
def test_terms_of_the_loss() -> None:
    layer, state, x = drawn()
    masks = hard_sigmoid(layer.decode(state))
    assert away(covered(masks).mean(), 1.0).item() == pytest.approx(FIXTURE["pair"], abs=1e-6)
    choice, _ = hard_softmax(x @ layer.router.T)
    # theirs takes hard choices for chances, and divides by the number of experts
    assert unevenness(choice, choice).item() / len(state) == pytest.approx(FIXTURE["balance"], abs=1e-6)
    for share, wanted, loss in FIXTURE["log_ratio"]:
        assert away(torch.tensor(share), wanted).item() == pytest.approx(loss, abs=1e-5)


def test_soft_masks() -> None:
    soft = torch.sigmoid((torch.tensor(FIXTURE["logits"]) + OFFSET) / TEMPERATURE)
    assert torch.allclose(soft, torch.tensor(FIXTURE["soft"]), atol=1e-6)
    assert hard_sigmoid(torch.tensor(FIXTURE["logits"])).tolist() == soft.round().tolist()
