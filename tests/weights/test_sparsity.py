"""Which weights become zero."""

from __future__ import annotations

import pytest
import torch

from pith.core import ModelError
from pith.weights.sparsity import least_of_groups, least_of_rows, parse_pattern


def test_patterns_say_how_many_of_how_many_are_pruned() -> None:
    assert parse_pattern("2:4") == (2, 4)
    assert parse_pattern("4:8") == (4, 8)
    assert parse_pattern("unstructured") is None


def test_each_row_loses_its_least_and_of_equals_the_first() -> None:
    scores = torch.tensor([[3.0, 1.0, 1.0, 1.0], [0.0, 9.0, 0.0, 5.0]])
    assert least_of_rows(scores, 2).tolist() == [[False, True, True, False], [True, False, True, False]]


def test_rows_may_lose_different_numbers() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert least_of_rows(scores, torch.tensor([0, 1, 3])).sum(dim=1).tolist() == [0, 1, 3]


def test_each_group_loses_its_least() -> None:
    scores = torch.rand(6, 24, generator=torch.Generator().manual_seed(0))
    mask = least_of_groups(scores, 4, 8)
    for row, pruned in zip(scores.view(-1, 8), mask.view(-1, 8), strict=True):
        assert set(pruned.nonzero().flatten().tolist()) == set(row.sort().indices[:4].tolist())


def test_a_row_that_has_no_whole_groups_is_refused() -> None:
    with pytest.raises(ModelError, match="30 inputs has no groups of 4; allowed are multiples of 4"):
        least_of_groups(torch.zeros(2, 30), 2, 4)
