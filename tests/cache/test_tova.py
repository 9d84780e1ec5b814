"""TOVA against its equation."""

from __future__ import annotations

import math

import pytest

from cache.test_snapkv import step
from pith.cache.tova import TOVA


@pytest.mark.parametrize("empty", [0, 5])
@pytest.mark.parametrize(("query_heads", "kv_heads"), [(3, 3), (8, 2)])
def test_scores_are_the_papers(query_heads: int, kv_heads: int, empty: int) -> None:
    s = step(query_heads, kv_heads, 17, empty)
    expected = [0.0] * (17 - empty)
    for head in range(query_heads):
        keys = s.keys[1, head // (query_heads // kv_heads), empty:]
        logits = [math.exp(float(s.query[1, head, -1] @ key) / math.sqrt(8)) for key in keys]
        expected = [e + x / sum(logits) / query_heads for e, x in zip(expected, logits, strict=True)]
    assert TOVA().score(s)[1, 0, empty:].tolist() == pytest.approx(expected, abs=1e-6)
