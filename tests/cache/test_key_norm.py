"""Key norm against its equation."""

from __future__ import annotations

import math

import pytest
import torch

from cache.test_snapkv import step
from pith.attention.evictor import best
from pith.cache.key_norm import KeyNorm


@pytest.mark.parametrize(("query_heads", "kv_heads"), [(3, 3), (8, 2)])
def test_scores_are_the_papers(query_heads: int, kv_heads: int) -> None:
    s = step(query_heads, kv_heads, 17)
    scores = KeyNorm().score(s)
    for head in range(kv_heads):
        expected = [-math.sqrt(sum(float(x) ** 2 for x in key)) for key in s.keys[1, head]]
        assert scores[1, head].tolist() == pytest.approx(expected, abs=1e-6)


def test_padding_takes_no_slot_though_its_keys_are_smallest() -> None:
    s = step(4, 2, 20, empty=6)
    s.keys[1, :, :6] = 0.0
    kept = best(KeyNorm().score(s), s.positions, torch.tensor([8, 8]))
    assert (kept[1] >= 6).all()
