"""LLM-Drop measures and drops what the authors' own code does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from contracts.drawn import drawn, drawn_tokens
from pith.pruning.llm_drop import LLMDrop
from pith.weights.calibration import of_tokens

FIXTURE = json.loads((Path(__file__).parent / "llm_drop.json").read_text())


@pytest.mark.parametrize("part", ["attention", "mlp", "block", "joint"])
@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: f"model-{c['model']}")
@torch.no_grad()
def test_similarities_and_order(case: dict[str, Any], part: Literal["attention", "mlp", "block", "joint"]) -> None:
    model = drawn(case["model"], scale=case["scale"], num_hidden_layers=case["blocks"])
    texts = of_tokens(drawn_tokens(case["texts"], case["length"], case["tokens"]).tolist())
    importance = LLMDrop(part=part).importance(model, texts)
    alike = case["similarity"]
    theirs = alike["attention"] + alike["mlp"] if part == "joint" else alike[part]
    assert (1 - importance).tolist() == pytest.approx(theirs, abs=1e-6)
    assert importance.argsort(stable=True)[:3].tolist() == case["dropped"][part]
