"""Pieces of work are timed by turns, and the interval of a median holds its level."""

from __future__ import annotations

import math

import pytest
import torch

from pith.weights.turns import by_turns, outermost

CPU = torch.device("cpu")


def test_turns_rotate_after_a_round_that_is_not_counted() -> None:
    called: list[str] = []
    calls = [lambda: called.append("a"), lambda: called.append("b")]
    took = by_turns(calls, CPU, rounds=3, seconds=60.0)
    assert "".join(called) == "ab" + "ab" + "ba" + "ab"
    assert [len(one) for one in took] == [3, 3]
    assert all(seconds >= 0 for one in took for seconds in one)


def test_no_round_begins_when_the_time_is_over_but_those_that_must_be() -> None:
    took = by_turns([lambda: None], CPU, rounds=9, seconds=-1.0, at_least=2)
    assert len(took[0]) == 2


@pytest.mark.parametrize("n", [1, 2, 5, 6, 8, 9, 12, 20, 40])
def test_the_interval_of_the_median_holds_its_level(n: int) -> None:
    k = outermost(n)
    outside = 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    wider = 2 * sum(math.comb(n, i) for i in range(k + 2)) / 2**n
    assert k == 0 or outside <= 0.05
    assert wider > 0.05, "one more could be left out"
