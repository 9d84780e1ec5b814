"""H2O holds the sums, and keeps what the authors' own code keeps, after the prompt and after each later forward."""

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
from pith.cache.h2o import H2O

FIXTURE = json.loads((Path(__file__).parent / "h2o.json").read_text())
CALL = Call(torch.nn.Identity(), mask=None, positions=None, scaling=None, softcap=None, sinks=None, dropout=0.0)


@pytest.mark.parametrize(
    "case", FIXTURE["cases"], ids=lambda c: f"{c['heads']}-{c['parts'][0]}-{c['hh_size']}-{c['recent_size']}"
)
def test_sums_and_kept_positions(case: dict[str, Any]) -> None:
    query, keys = torch.tensor(case["query"])[None], torch.tensor(case["keys"])[None]
    budget = case["hh_size"] + case["recent_size"]
    method = H2O(budget=budget, recent_share=case["recent_size"] / budget)
    layer = LayerCache(0, 1, CacheGroup([0], 1), Answers(evictor=Evictor(method, seat=(0, 1), placement=None)))
    parts = zip(query.split(case["parts"], 2), keys.split(case["parts"], 2), strict=True)
    for i, (q, k) in enumerate(parts):
        layer.attend(CALL, q, k, k)
        kept = layer.store.positions[0].expand(case["heads"], -1)
        assert kept.tolist() == case["kept"][i]
        assert layer.store.carried is not None
        assert (layer.store.carried[0] - torch.tensor(case["scores"][i])).abs().max() < 1e-5
