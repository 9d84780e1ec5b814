"""KVzip scores as the authors' own code does, and keeps what it keeps, and the one pair more that the share says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.steps import step
from pith.attention.evictor import best
from pith.cache.kvzip import reconstruction, shares

FIXTURE = json.loads((Path(__file__).parent / "kvzip.json").read_text())


def scored(case: dict[str, Any]) -> torch.Tensor:
    """[layer, kv_head, context], pass by pass."""
    found, sink = [], case["sink"]
    for turn in case["passes"]:
        columns = torch.tensor([[*range(sink), *range(turn["start"], turn["end"])]], dtype=torch.long)
        layers = []
        for query, keys, own in zip(turn["query"], case["keys"], turn["keys"], strict=True):
            s = step(torch.tensor(query)[None], torch.cat([torch.tensor(keys), torch.tensor(own)], dim=1)[None])
            layers.append(reconstruction(s, columns)[0, :, sink:])
        found.append(torch.stack(layers))
    return torch.cat(found, dim=2)


def kept(scores: torch.Tensor, counts: torch.Tensor) -> list[list[list[int]]]:
    """The positions that each layer and head keeps, by their numbers."""
    positions = torch.arange(scores.shape[-1], dtype=torch.int32).expand(1, 1, -1)
    chosen = best(scores.flatten(0, 1)[None], positions, counts.reshape(1, -1))[0]
    lists = [head[head >= 0].tolist() for head in chosen]
    return [lists[i : i + scores.shape[1]] for i in range(0, len(lists), scores.shape[1])]


def best_of_all(scores: torch.Tensor, count: int) -> list[list[list[int]]]:
    """So many of all scores."""
    # one layer and head holds all, so that the mean over heads is the total
    (taken,) = shares([scores.reshape(1, 1, -1)], torch.tensor([count]))
    assert int(taken.sum()) == count
    flat = kept(scores.reshape(1, 1, -1), taken)[0][0]
    layers, heads, context = scores.shape
    return [
        [[i % context for i in flat if i // context == layer * heads + head] for head in range(heads)]
        for layer in range(layers)
    ]


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: f"{c['layers']}-{c['heads']}-{c['kv_heads']}")
def test_scores(case: dict[str, Any]) -> None:
    assert (scored(case) - torch.tensor(case["score"])).abs().max() < 1e-6


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: f"{c['layers']}-{c['heads']}-{c['kv_heads']}")
def test_one_threshold_over_layers_and_heads(case: dict[str, Any]) -> None:
    scores = scored(case)
    for cut in case["threshold"]:
        assert best_of_all(scores, cut["count"]) == cut["kept"]
        # as stated: the authors keep one pair less than the share
        share = int(scores.numel() * cut["ratio"])
        assert cut["count"] == (share if cut["ratio"] == 1 else max(share - 1, 0))


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: f"{c['layers']}-{c['heads']}-{c['kv_heads']}")
def test_each_head_its_own_best(case: dict[str, Any]) -> None:
    scores = scored(case)
    for cut in case["uniform"]:
        count = int(case["context"] * cut["ratio"])
        assert kept(scores, torch.full(scores.shape[:2], count)) == cut["kept"]


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: f"{c['layers']}-{c['heads']}-{c['kv_heads']}")
def test_heads_get_the_numbers_of_the_threshold(case: dict[str, Any]) -> None:
    scores = scored(case)
    for count in range(1, case["context"], 3):
        counts = torch.cat(shares([layer[None] for layer in scores], torch.tensor([count])))
        wanted = best_of_all(scores, count * scores.shape[0] * scores.shape[1])
        assert counts.tolist() == [[len(head) for head in layer] for layer in wanted]
        assert kept(scores, counts) == wanted


@pytest.mark.parametrize("case", FIXTURE["ties"], ids=lambda c: f"{c['ratio']}-{c['count']}")
def test_ties_deviate_as_stated(case: dict[str, Any]) -> None:
    """The authors keep none of the pairs that tie at the threshold; here the number is what the share says."""
    scores = torch.tensor(case["score"])
    count = int(scores.numel() * case["ratio"])
    mine = best_of_all(scores, count)
    assert case["count"] < count
    for own, theirs in zip(mine, case["kept"], strict=True):
        assert all(set(b) <= set(a) for a, b in zip(own, theirs, strict=True))
