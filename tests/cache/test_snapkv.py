"""SnapKV against its equation, written naively: loops over rows, heads and positions."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from contracts.steps import step as made
from pith.attention import Step
from pith.attention.evictor import best
from pith.cache.snapkv import SnapKV


def step(query_heads: int, kv_heads: int, length: int, empty: int = 0, seed: int = 0) -> Step:
    torch.manual_seed(seed)
    positions = torch.arange(length, dtype=torch.int32).expand(2, 1, length).clone()
    if empty:  # the second row begins with padding
        positions[1, 0] = torch.cat([torch.full((empty,), -1), torch.arange(length - empty)])
    query, keys = torch.randn(2, query_heads, length, 8), torch.randn(2, kv_heads, length, 8)
    return made(query, keys, torch.randn(2, kv_heads, length, 8), positions)


def naive_votes(s: Step, row: int, head: int, window: int) -> list[float]:
    """What the last `window` queries of one query head give each earlier position; softmax over all keys."""
    group = s.query.shape[1] // s.keys.shape[1]
    length = s.stored
    first = int((s.positions[row, 0] < 0).sum())
    votes = [0.0] * (length - window)
    for i in range(max(length - window, first), length):
        logits = [
            float(s.query[row, head, i] @ s.keys[row, head // group, j]) / math.sqrt(8) for j in range(first, i + 1)
        ]
        total = sum(math.exp(x) for x in logits)
        for j in range(first, length - window):
            votes[j] += math.exp(logits[j - first]) / total
    return votes


def naive_score(s: Step, method: SnapKV, row: int, kv_head: int) -> list[float]:
    group = s.query.shape[1] // s.keys.shape[1]
    heads = [naive_votes(s, row, kv_head * group + g, method.window) for g in range(group)]
    merge = {"mean": lambda xs: sum(xs) / len(xs), "max": max, "sum": sum}[method.group]
    votes = [merge(xs) for xs in zip(*heads, strict=True)]
    half = method.kernel // 2
    scores = []
    for j in range(len(votes)):
        around = [votes[i] if 0 <= i < len(votes) else 0.0 for i in range(j - half, j + half + 1)]
        scores.append(max(around) if method.pooling == "max" else sum(around) / method.kernel)
    return scores


@pytest.mark.parametrize(("query_heads", "kv_heads"), [(3, 3), (8, 2)])
@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("group", ["mean", "max", "sum"])
@pytest.mark.parametrize(("length", "empty"), [(23, 0), (23, 4)])
def test_scores_are_the_papers(
    query_heads: int,
    kv_heads: int,
    pooling: Literal["max", "mean"],
    group: Literal["mean", "max", "sum"],
    length: int,
    empty: int,
) -> None:
    s = step(query_heads, kv_heads, length, empty)
    method = SnapKV(window=5, kernel=3, pooling=pooling, group=group)
    scores = method.score(s)
    for row in range(2):
        first = empty if row else 0
        for head in range(kv_heads):
            expected = naive_score(s, method, row, head)
            assert scores[row, head, first : length - 5].tolist() == pytest.approx(expected[first:], abs=1e-6)
    assert scores[..., -5:].isinf().all()


def test_the_window_is_kept_and_counts_in_the_budget() -> None:
    s = step(8, 2, 40)
    kept = best(SnapKV(window=8).score(s), s.positions, torch.tensor([12, 12]))
    assert kept.shape == (2, 2, 12)
    assert (kept[..., -8:] == torch.arange(32, 40)).all()


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_prompts_no_longer_than_the_window(length: int) -> None:
    s = step(4, 2, length)
    kept = best(SnapKV(window=8).score(s), s.positions, torch.tensor([2, 2]))
    assert kept[0, 0].tolist() == list(range(max(0, length - 2), length))
