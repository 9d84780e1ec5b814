"""TOVA keeps what the authors' own code keeps, after the prompt and after each decoded token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pith.attention import LayerCache
from pith.attention.answers import Answers
from pith.attention.call import Call
from pith.attention.evictor import Evictor
from pith.attention.in_flight import CacheGroup
from pith.cache.tova import TOVA

FIXTURE = json.loads((Path(__file__).parent / "tova.json").read_text())


@pytest.mark.parametrize(
    "case", FIXTURE["cases"], ids=lambda c: f"{len(c['query'])}-{len(c['keys'])}-{c['prompt']}-{c['cache_size']}"
)
def test_kept_positions(case: dict[str, Any]) -> None:
    query, keys = torch.tensor(case["query"])[None], torch.tensor(case["keys"])[None]
    layer = LayerCache(
        0, 1, CacheGroup([0], 1), Answers(evictor=Evictor(TOVA(budget=case["cache_size"]), seat=(0, 1), placement=None))
    )
    call = Call(torch.nn.Identity(), mask=None, positions=None, scaling=None, softcap=None, sinks=None, dropout=0.0)
    parts = [case["prompt"], *[1] * (query.shape[2] - case["prompt"])]
    for q, k, expected in zip(query.split(parts, 2), keys.split(parts, 2), case["kept"], strict=True):
        layer.attend(call, q, k, k)
        assert layer.store.positions[0, 0].tolist() == expected
