"""KeyDiff against its equation."""

from __future__ import annotations

import math

import pytest

from cache.test_snapkv import step
from pith.cache.key_diff import KeyDiff


@pytest.mark.parametrize("empty", [0, 5])
@pytest.mark.parametrize(("query_heads", "kv_heads"), [(3, 3), (8, 2)])
def test_scores_are_the_papers(query_heads: int, kv_heads: int, empty: int) -> None:
    s = step(query_heads, kv_heads, 17, empty)
    s.keys[1, :, :empty] = 7.0  # padding that would pull the anchor its way
    scores = KeyDiff().score(s)
    for head in range(kv_heads):
        keys = [[float(x) for x in key] for key in s.keys[1, head, empty:]]
        units = [[x / math.sqrt(sum(y * y for y in key)) for x in key] for key in keys]
        anchor = [sum(column) / len(units) for column in zip(*units, strict=True)]
        size = math.sqrt(sum(x * x for x in anchor))
        expected = [-sum(x * a for x, a in zip(unit, anchor, strict=True)) / size for unit in units]
        assert scores[1, head, empty:].tolist() == pytest.approx(expected, abs=1e-5)
