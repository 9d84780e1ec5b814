"""Wanda and magnitude prune what the authors' own code prunes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pith.pruning.magnitude import Magnitude
from pith.pruning.wanda import Wanda
from pith.weights import SecondMoments

FIXTURE = json.loads((Path(__file__).parent / "wanda.json").read_text())
INPUTS = torch.tensor(FIXTURE["inputs"]).flatten(0, 1)
WEIGHTS = {"up": torch.tensor(FIXTURE["up"]), "down": torch.tensor(FIXTURE["down"])}
READ = {"up": INPUTS, "down": INPUTS @ WEIGHTS["up"].T}
NAMES = [f"{c['sparsity']}-{c['pattern']}{'-variant' if c['variant'] else ''}" for c in FIXTURE["cases"]]


def places(mask: Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in mask]


def test_the_norms_are_theirs() -> None:
    moments = SecondMoments(32)
    moments.add(INPUTS)
    assert torch.allclose(moments.matrix.diagonal() / 3, torch.tensor(FIXTURE["scaler_row"]), rtol=1e-5)


@pytest.mark.parametrize("layer", ["up", "down"])
@pytest.mark.parametrize("case", FIXTURE["cases"], ids=NAMES)
def test_wanda(case: dict[str, Any], layer: str) -> None:
    method = Wanda(sparsity=case["sparsity"], pattern=case["pattern"], variant=case["variant"])
    scores = WEIGHTS[layer].abs() * READ[layer].norm(dim=0)
    assert places(method.pruned(scores)) == case["pruned"][layer]


@pytest.mark.parametrize("layer", ["up", "down"])
@pytest.mark.parametrize("case", FIXTURE["magnitude"], ids=["0.5", "0.3", "2:4", "4:8"])
def test_magnitude(case: dict[str, Any], layer: str) -> None:
    """Where the zeros may stand anywhere, the authors prune what is as small as the first that should stay, too."""
    sizes = WEIGHTS[layer].abs()
    mask = Magnitude(sparsity=case["sparsity"], pattern=case["pattern"]).of_layer(sizes)
    if case["pattern"] != "unstructured":
        equal = sizes.unflatten(1, (-1, int(case["pattern"][-1]))).sort(dim=-1).values
        assert (equal.diff(dim=-1) > 0).all(), "the code leaves ties to chance"
        assert places(mask) == case["pruned"][layer]
        return
    theirs = torch.zeros_like(mask)
    for row, columns in enumerate(case["pruned"][layer]):
        theirs[row, columns] = True
    assert int(mask.sum()) == int(mask.numel() * case["sparsity"])
    assert not (mask & ~theirs).any()
    assert set(sizes[theirs & ~mask].tolist()) == {float(sizes[theirs].max())}
