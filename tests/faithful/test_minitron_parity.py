"""Minitron's scores are those of the library that its authors maintain."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from pith.pruning.minitron import SequenceNorms

FIXTURE = json.loads((Path(__file__).parent / "minitron.json").read_text())


def scored(batches: list[torch.Tensor]) -> torch.Tensor:
    sums = SequenceNorms(5)
    for batch in batches:
        sums.add(batch.flatten(0, 1))
    return sums.score()


def test_scores_of_channels_and_of_the_hidden_width() -> None:
    generator = torch.Generator().manual_seed(0)
    channels = [torch.randn(rows, 5, 8, generator=generator) for rows in (3, 2)]
    assert torch.allclose(scored(channels), torch.tensor(FIXTURE["channels"]), rtol=1e-5)
    norms = [[torch.randn(3, 5, 8, generator=generator) for _ in range(2)] for _ in range(4)]
    hidden = torch.stack([scored(batches) for batches in norms]).sum(0)
    assert torch.allclose(hidden, torch.tensor(FIXTURE["hidden"]), rtol=1e-5)
