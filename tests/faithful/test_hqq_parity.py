"""HQQ against numbers that the authors' code gave: codes, scales and zeros, and how many steps were taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pith.quantization.hqq import HQQ

FIXTURE = json.loads((Path(__file__).parent / "hqq.json").read_text())
WEIGHT = torch.tensor(FIXTURE["weight"])


def name(case: dict[str, Any]) -> str:
    return f"{case['bits']}-{case['group_size']}"


SEARCHED = [case for case in FIXTURE["cases"] if case["optimize"]]


@pytest.mark.parametrize("case", SEARCHED, ids=name)
def test_the_zero_the_scale_and_the_codes(case: dict[str, Any]) -> None:
    grid = HQQ(group_size=case["group_size"]).grid(WEIGHT, case["bits"])
    assert torch.allclose(grid.scale, torch.tensor(case["scale"]), rtol=1e-6, atol=1e-8)
    assert (grid.zero - torch.tensor(case["zero"])).abs().max() < 1e-3
    codes = torch.tensor([[int(code, 16) for code in row] for row in case["codes"]])
    differ = grid.codes(WEIGHT) != codes
    assert differ.float().mean() < 0.005  # those within 1e-3 of a tie
    scale, zero = grid.spread(WEIGHT.shape[1])
    from_a_tie = ((WEIGHT / scale + zero) % 1 - 0.5).abs()
    assert (from_a_tie[differ] < 2e-3).all()


@pytest.mark.parametrize("case", SEARCHED, ids=name)
def test_it_stops_where_theirs_stops(case: dict[str, Any]) -> None:
    steps = len(case["errors"])
    first, theirs, more = (
        HQQ(group_size=case["group_size"], iterations=count).grid(WEIGHT, case["bits"]).zero for count in (1, steps, 40)
    )
    assert torch.equal(theirs, more)
    assert not torch.equal(first, more)


def test_the_search_matters() -> None:
    """Zeros that no search moved are others."""
    for case in FIXTURE["cases"]:
        if not case["optimize"]:
            grid = HQQ(group_size=case["group_size"]).grid(WEIGHT, case["bits"])
            assert (grid.zero - torch.tensor(case["zero"])).abs().max() > 0.05
