"""PyramidKV gives layers what the authors' own code gives them, less what their rounding adds to the budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.steps import step
from pith.attention import Seat
from pith.attention.evictor import best
from pith.cache.pyramid_kv import PyramidKV, ends
from pith.cache.snapkv import SnapKV

FIXTURE = json.loads((Path(__file__).parent / "pyramid_kv.json").read_text())


def name(case: dict[str, Any]) -> str:
    return "-".join(str(case[key]) for key in ("layers", "capacity", "window", "beta", "length"))


def theirs(case: dict[str, Any]) -> list[int]:
    """The authors' integers, from the ends that Pith gives the pyramid."""
    window, length = case["window"], case["length"]
    mean = torch.tensor([case["capacity"] - window])
    if length < case["capacity"]:
        return [length] * case["layers"]
    if length < 2 * int(mean):
        return [case["capacity"]] * case["layers"]
    high, low = ends(mean, torch.tensor([length - window]), case["beta"])
    down = (high - low) // (case["layers"] - 1)
    return [int(high - layer * down) + window for layer in range(case["layers"])]


def ours(case: dict[str, Any]) -> list[int]:
    method = PyramidKV(of=SnapKV(budget=case["capacity"], window=case["window"]), beta=case["beta"])
    seats = (Seat(layer, case["layers"], 1024) for layer in range(case["layers"]))
    return [min(int(method.limit(torch.tensor([case["length"]]), seat)[0]), case["length"]) for seat in seats]


@pytest.mark.parametrize("case", FIXTURE["capacities"], ids=name)
def test_layers(case: dict[str, Any]) -> None:
    kept, mine = case["kept_counts"], ours(case)
    assert theirs(case) == kept
    # as stated: they keep the remainder of the step too, which grows up the layers and is less than a pair a layer
    more = [k - m for k, m in zip(kept, mine, strict=True)]
    assert more[0] == 0
    assert all(0 <= m < case["layers"] - 1 or m == 0 for m in more)
    assert sum(mine) == case["layers"] * min(case["capacity"], case["length"])
    assert sum(more) <= case["layers"] * (case["layers"] - 2) / 2


@pytest.mark.parametrize(
    ("layers", "capacity", "length", "over"),
    [(32, 64, 300, 0.1172), (80, 128, 500, 0.2734), (32, 2048, 8000, 0.000244)],
)
def test_how_far_the_authors_exceed_the_budget(layers: int, capacity: int, length: int, over: float) -> None:
    wanted = {"layers": layers, "capacity": capacity, "length": length, "window": 8}
    (case,) = (c for c in FIXTURE["capacities"] if wanted.items() <= c.items())
    assert sum(case["kept_counts"]) / sum(ours(case)) - 1 == pytest.approx(over, rel=2e-3)
    assert sum(ours(case)) == layers * capacity


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: f"{name(c)}-{c['pooling']}-{c['group']}")
def test_kept_pairs(case: dict[str, Any]) -> None:
    """With the authors' counts, the scores of the inner method choose what they choose."""
    prompt = step(torch.tensor(case["query"])[None], torch.tensor(case["keys"])[None])
    pooling = {"avg": "mean", "max": "max"}[case["pooling"]]
    inner = SnapKV(
        budget=case["capacity"],
        window=case["window"],
        kernel=case["kernel"],
        pooling=pooling,
        group=case["group"] or "mean",
    )
    scores = PyramidKV(of=inner).score(prompt)
    for layer, count, kept in zip(case["layer_indices"], case["counts"], case["kept"], strict=True):
        assert theirs(case)[layer] == count
        assert best(scores, prompt.positions, torch.tensor([count]))[0].tolist() == kept
