"""StreamingLLM keeps what the authors' own code keeps, after every forward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.tiny import tiny, tokens
from pith.core import Recipe

FIXTURE = json.loads((Path(__file__).parent / "streaming_llm.json").read_text())


@torch.no_grad()
@pytest.mark.parametrize(
    "case", FIXTURE["cases"], ids=lambda c: f"{c['start_size']}+{c['recent_size']}-{c['chunks'][0]}"
)
def test_kept_positions(case: dict[str, Any]) -> None:
    model, budget = tiny("llama_gqa"), case["start_size"] + case["recent_size"]
    cache = Recipe.parse(f"streaming_llm(budget={budget}, start_size={case['start_size']})").cache(model)
    ids = tokens(1, sum(case["chunks"]))
    for part, expected in zip(ids.split(case["chunks"], dim=1), case["kept"], strict=True):
        model(part, past_key_values=cache)
        assert cache.layers[0].store.positions[0, 0].tolist() == expected
    model.set_attn_implementation("sdpa")
