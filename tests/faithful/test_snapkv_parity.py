"""SnapKV keeps what the authors' own code keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.steps import step
from pith.attention.evictor import best
from pith.cache.snapkv import SnapKV

FIXTURE = json.loads((Path(__file__).parent / "snapkv.json").read_text())


def kept(case: dict[str, Any]) -> list[list[int]]:
    """What Pith keeps of the case's keys, for each key-value head."""
    query, keys = torch.tensor(case["query"])[None], torch.tensor(case["keys"])[None]
    prompt = step(query, keys)
    method = SnapKV(window=case["window"], kernel=case["kernel"], pooling=case["pooling"])
    return best(method.score(prompt), prompt.positions, torch.tensor([case["capacity"]]))[0].tolist()


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: "-".join(str(v) for v in list(c.values())[:5]))
def test_one_query_head_for_each_key_value_head(case: dict[str, Any]) -> None:
    assert kept(case) == case["kept"]


@pytest.mark.parametrize("case", FIXTURE["grouped"], ids=["a", "b", "c"])
def test_grouped_queries_deviate_as_stated(case: dict[str, Any]) -> None:
    """The authors choose for each query head, four times the bytes; the mean vote of a group agrees with most of it."""
    for head, mine in enumerate(kept(case)):
        theirs = case["kept"][4 * head : 4 * head + 4]
        shared = [len(set(mine) & set(kept_by_one)) / len(mine) for kept_by_one in theirs]
        assert sum(len(kept_by_one) for kept_by_one in theirs) == 4 * len(mine)
        assert 0.6 < sum(shared) / 4 < 0.95
