"""KeyDiff keeps what the code of kvpress keeps (its authors published none), at once and block by block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.steps import step
from pith.attention import LayerCache
from pith.attention.answers import Answers
from pith.attention.call import Call
from pith.attention.evictor import Evictor, best
from pith.attention.in_flight import CacheGroup
from pith.cache.key_diff import KeyDiff

FIXTURE = json.loads((Path(__file__).parent / "key_diff.json").read_text())
CALL = Call(torch.nn.Identity(), mask=None, positions=None, scaling=None, softcap=None, sinks=None, dropout=0.0)
BLOCKS = [(case, run) for case in FIXTURE["cases"] for run in case["blocks"]]


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=["a", "b", "c"])
def test_scores_and_kept_positions(case: dict[str, Any]) -> None:
    keys = torch.tensor(case["keys"])[None]
    prompt = step(keys, keys)
    scores = KeyDiff().score(prompt)
    assert (scores[0] - torch.tensor(case["scores"])).abs().max() < 1e-6
    for run in case["runs"]:
        assert best(scores, prompt.positions, torch.tensor([run["budget"]]))[0].tolist() == run["kept"]


@pytest.mark.parametrize(("case", "run"), BLOCKS, ids=[f"{r['budget']}-{r['block']}" for _, r in BLOCKS])
def test_block_by_block(case: dict[str, Any], run: dict[str, Any]) -> None:
    """Blocks of one token are decoded tokens, of which each drops one pair."""
    keys = torch.tensor(case["keys"])[None]
    blocks = [keys[:, :, : run["first"]], *keys[:, :, run["first"] :].split(run["block"], dim=2)]
    layer = LayerCache(
        0, 1, CacheGroup([0], 1), Answers(evictor=Evictor(KeyDiff(budget=run["budget"]), seat=(0, 1), placement=None))
    )
    for block in blocks:
        layer.attend(CALL, block, block, block)
    assert layer.store.positions[0].expand(keys.shape[1], -1).tolist() == run["kept"]
