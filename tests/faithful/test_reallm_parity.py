"""ReALLM orders columns and chooses codes for a given codebook as the authors' own code does."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from pith.quantization.latent import cheapest_codes, column_order, vectors

FIXTURE = json.loads((Path(__file__).parent / "reallm.json").read_text())


def test_order_of_columns() -> None:
    case = FIXTURE["permute"]
    strip = torch.randn(case["shape"], generator=torch.Generator().manual_seed(case["seed"]))
    [order] = column_order(strip)
    kept = len(order) - case["unmoved"]  # their loop stops before it has placed the last two
    assert order[:kept].tolist() == case["order"][:kept]
    places = order.argsort().tolist()
    last = set(order[kept:].tolist())
    assert all(places[at] == theirs for at, theirs in enumerate(case["inverse"]) if at not in last)


def test_codes_of_a_codebook() -> None:
    """A decoder that reads nothing beside the latent itself is a codebook."""
    case = FIXTURE["assign"]
    codebook = torch.tensor(case["codebook"]).T
    targets = vectors(torch.tensor(case["target"]), codebook.shape[1])
    table = codebook.expand(len(codebook), -1, -1)
    assert cheapest_codes(targets, torch.ones_like(targets), table).tolist() == case["codes"]
