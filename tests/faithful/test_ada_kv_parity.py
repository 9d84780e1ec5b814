"""Ada-KV divides a budget, and keeps, as the authors' own code does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.steps import step
from pith.attention import Step
from pith.attention.evictor import best
from pith.cache.ada_kv import AdaKV
from pith.cache.snapkv import SnapKV

FIXTURE = json.loads((Path(__file__).parent / "ada_kv.json").read_text())
CASES = [case for case in FIXTURE["cases"] if not case["normalize"]]
[NORMALISED] = [case for case in FIXTURE["cases"] if case["normalize"]]


def prompt(case: dict[str, Any]) -> Step:
    query, keys = torch.tensor(case["query"])[None], torch.tensor(case["keys"])[None]
    if not case["gqa_support"]:  # as the authors do, a key-value head for each query head
        keys = keys.repeat_interleave(query.shape[1] // keys.shape[1], dim=1)
    return step(query, keys)


def method(case: dict[str, Any], floor_alpha: float) -> AdaKV:
    snapkv = SnapKV(
        budget=case["base_capacity"],
        window=case["window"],
        kernel=case["kernel"],
        pooling="mean" if case["pooling"] == "avg" else "max",
        group=case["gqa_func"] or "mean",
    )
    return AdaKV(of=snapkv, floor_alpha=floor_alpha)


def counts_and_kept(case: dict[str, Any], floor_alpha: float) -> tuple[list[int], list[list[int]]]:
    """What each head keeps: how many beside the window, and which."""
    s, limit = prompt(case), torch.tensor([case["base_capacity"]])
    ada_kv = method(case, floor_alpha)
    scores = ada_kv.score(s)
    counts = ada_kv.split(scores, limit)
    kept = best(scores, s.positions, counts)[0]
    return (counts[0] - case["window"]).tolist(), [[j for j in head if j >= 0] for head in kept.tolist()]


def name(case: dict[str, Any]) -> str:
    return f"{case['length']}-{case['base_capacity']}-{case['kernel']}-{case['pooling']}-{case['gqa_func']}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_scores(case: dict[str, Any]) -> None:
    earlier = method(case, 0.2).score(prompt(case))[0, :, : -case["window"]]
    # theirs are means over the window's queries, Pith's sums: the same order
    assert (earlier / case["window"] - torch.tensor(case["scores"])).abs().max() < 1e-6


@pytest.mark.parametrize("case", CASES, ids=name)
def test_counts_and_kept_positions(case: dict[str, Any]) -> None:
    room = case["base_capacity"] - case["length"]
    for run in case["runs"]:
        counts, kept = counts_and_kept(case, float(run["floor_alpha"]))
        if room < 0:
            assert counts == run["capacities"]
            assert kept == run["kept"]
            assert sum(map(len, kept)) == run["total"]
        else:  # everything fits: the authors' rounding drops a pair of each head in one of these runs
            assert kept == [list(range(case["length"]))] * len(kept)
            assert sum(map(len, kept)) - run["total"] in ({0, 2} if room == 0 else {0})


def test_their_normalised_ranking_is_left_out() -> None:
    """A head's scores are weighted by its share of the best ones; here it differs by one pair."""
    for run in NORMALISED["runs"]:
        counts, _ = counts_and_kept(NORMALISED, float(run["floor_alpha"]))
        assert max(abs(a - b) for a, b in zip(counts, run["capacities"], strict=True)) <= 1
