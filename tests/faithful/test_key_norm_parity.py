"""Key norm keeps what the authors' own code keeps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.steps import step
from pith.attention.evictor import best
from pith.cache.key_norm import KeyNorm

FIXTURE = json.loads((Path(__file__).parent / "key_norm.json").read_text())


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: f"{c['length']}-{c['ratio']}-{len(c['keys'])}")
def test_kept_positions(case: dict[str, Any]) -> None:
    keys = torch.tensor(case["keys"])[None]
    prompt = step(keys, keys)
    rounded_up = torch.tensor([math.ceil(case["ratio"] * case["length"])])  # the authors' rounding
    assert best(KeyNorm().score(prompt), prompt.positions, rounded_up)[0].tolist() == case["kept"]
