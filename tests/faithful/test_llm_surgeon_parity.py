"""LLM Surgeon's costs, thresholds and updates are those of the authors' own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pith.pruning.kronecker import Layer, structured_threshold, threshold

FIXTURE = json.loads((Path(__file__).parent / "llm_surgeon.json").read_text())
LAYERS = [
    Layer.of(*(torch.tensor(one[key]) for key in "WAG"), (FIXTURE["damping_a"], FIXTURE["damping_g"]))
    for one in FIXTURE["layers"]
]
COSTS = [(layer.row_costs(), layer.column_costs()) for layer in LAYERS]


def near(found: torch.Tensor, theirs: list[Any]) -> bool:
    return torch.allclose(found, torch.tensor(theirs).double(), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("index", [0, 1])
def test_costs(index: int) -> None:
    theirs = FIXTURE["costs"][index]
    assert near(LAYERS[index].row_costs(), theirs["row"])
    assert near(LAYERS[index].column_costs(), theirs["column"])
    assert near(LAYERS[index].element_costs(), theirs["element"])


@pytest.mark.parametrize("case", FIXTURE["structured"], ids=lambda c: str(c["sparsity"]))
def test_rows_and_columns(case: dict[str, Any]) -> None:
    """As one set they are the code's with --addupdate; without it, two independent solutions added up."""
    most = structured_threshold(COSTS, case["sparsity"])
    assert most == pytest.approx(case["threshold"], rel=1e-4)
    pairs = zip(LAYERS, COSTS, case["together"], case["apart"], strict=True)
    for layer, (rows, columns), together, apart in pairs:
        gone_rows, gone_columns = rows <= most, columns <= most
        none_rows, none_columns = torch.zeros_like(gone_rows), torch.zeros_like(gone_columns)
        assert near(layer.without(gone_rows, gone_columns), together)
        whole = layer.without(none_rows, none_columns)
        added = layer.without(gone_rows, none_columns) + layer.without(none_rows, gone_columns) - whole
        added[gone_rows], added[:, gone_columns] = 0, 0
        assert near(added, apart)
    assert case["sparsity"] < 0.3 or case["together"] != case["apart"]


@pytest.mark.parametrize("case", FIXTURE["unstructured"], ids=lambda c: f"{c['sparsity']}-{c['together']}")
def test_single_weights(case: dict[str, Any]) -> None:
    costs = [layer.element_costs() for layer in LAYERS]
    every = torch.cat([one.flatten() for one in costs]).sort().values
    assert float(every[int(case["sparsity"] * len(every))]) == pytest.approx(case["threshold"], rel=1e-4)
    # the code prunes one weight more than asked
    assert (
        threshold([one.flatten() for one in costs], case["sparsity"]) == every[int(case["sparsity"] * len(every)) - 1]
    )
    for layer, cost, after in zip(LAYERS, costs, case["after"], strict=True):
        removed = cost <= case["threshold"] * (1 + 1e-4)
        assert near(layer.without_elements(removed, case["together"] or 10_000), after)
