"""Budgets: shares, tokens, bytes."""

from __future__ import annotations

import pytest
import torch

from pith.attention import Seat
from pith.cache.snapkv import SnapKV
from pith.core import DenseCache, ParameterError, parse_budget, parse_bytes


@pytest.mark.parametrize(("text", "count"), [("64MiB", 64 * 2**20), ("1.5 KB", 1500), ("12B", 12), ("2gib", 2**31)])
def test_bytes_as_text(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "64", "MiB", "-3MB", "0KB", "64 MiBs"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="is no size"):
        parse_bytes(text)


def test_everything_is_a_share_of_one() -> None:
    assert parse_budget(1.0).everything
    assert not parse_budget(1).everything
    assert parse_budget(1).tokens == 1


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(0.1, [3, 1, 100]), (0.5, [15, 1, 500]), (7, [7, 7, 7]), ("1000B", [10, 10, 10]), ("1B", [1, 1, 1])],
)
def test_how_many_tokens_a_row_may_keep(budget: float | int | str, expected: list[int]) -> None:
    limit = SnapKV(budget=budget).limit(torch.tensor([30, 3, 1000]), Seat(index=0, count=1, token_bytes=100))
    assert limit.tolist() == expected


def test_what_a_budget_claims() -> None:
    assert SnapKV(budget=0.25).claimed(DenseCache(tokens=1000, token_bytes=8)) == 0.25
    assert SnapKV(budget=100).claimed(DenseCache(tokens=1000, token_bytes=8)) == 0.1
    assert SnapKV(budget=100).claimed(DenseCache(tokens=50, token_bytes=8)) == 1.0
    assert SnapKV(budget="400B").claimed(DenseCache(tokens=100, token_bytes=8)) == 0.5
