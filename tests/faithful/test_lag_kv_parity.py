"""LagKV scores, and keeps what the authors' own code keeps, after each forward."""

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
from pith.cache.lag_kv import LagKV, stands_out

FIXTURE = json.loads((Path(__file__).parent / "lag_kv.json").read_text())
CALL = Call(torch.nn.Identity(), mask=None, positions=None, scaling=None, softcap=None, sinks=None, dropout=0.0)


def layer(case: dict[str, Any]) -> LayerCache:
    method = LagKV(
        ratio=case["ratio"],
        sink_size=case["sink_size"],
        lag_size=case["lag_size"],
        score_v_ratio=float(case["score_v_ratio"]),
    )
    return LayerCache(0, 1, CacheGroup([0], 1), Answers(evictor=Evictor(method, seat=(0, 1), placement=None)))


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: f"{sum(c['parts'])}-{c['sink_size']}-{c['lag_size']}")
def test_kept_positions(case: dict[str, Any]) -> None:
    keys, values, held = torch.tensor(case["keys"])[None], torch.tensor(case["values"])[None], layer(case)
    kept = [list[int]() for _ in range(case["heads"])]
    seen = 0
    for part, step in zip(case["parts"], case["steps"], strict=True):
        new = slice(seen, seen + part)
        held.attend(CALL, keys[:, :, new], keys[:, :, new], values[:, :, new])
        kept = step["kept"] or [head + list(range(seen, seen + part)) for head in kept]
        assert held.store.positions[0].expand(case["heads"], -1).tolist() == kept
        assert held.store.length == step["length"]
        seen += part


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: f"{sum(c['parts'])}-{c['sink_size']}-{c['lag_size']}")
def test_scores(case: dict[str, Any]) -> None:
    """A run's score does not depend on when it was gone through; the first step that drops something is looked at."""
    steps = [step for step in case["steps"] if step["scores"]]
    if not steps:
        return
    expected, size, first = torch.tensor(steps[0]["scores"]), case["lag_size"], case["sink_size"]
    last = first + (expected.shape[1] + 1) * size
    for head in range(case["heads"]):
        k, v = (torch.tensor(case[name])[head, first:last].unflatten(0, (-1, size)) for name in ("keys", "values"))
        runs = torch.arange(expected.shape[1])
        mine = stands_out(k, runs) + case["score_v_ratio"] * stands_out(v, runs)
        assert (mine - expected[head]).abs().max() < 1e-5
