"""Random eviction: even, seeded, and blind to everything but layer, head and position."""

from __future__ import annotations

from dataclasses import replace

import torch

from cache.test_snapkv import step
from pith.cache.random_eviction import RandomEviction


def test_scores_are_even_and_differ_between_layers_heads_and_seeds() -> None:
    s = step(4, 4, 5000)
    scores = RandomEviction().score(s)
    assert 0.48 < scores.mean() < 0.52
    assert abs(scores.std() - 12**-0.5) < 0.01
    others = [scores[0, 1], RandomEviction(seed=1).score(s)[0, 0], RandomEviction().score(replace(s, layer=1))[0, 0]]
    for other in others:
        assert abs(torch.corrcoef(torch.stack([scores[0, 0], other]))[0, 1]) < 0.06


def test_a_position_scores_the_same_wherever_its_row_stands() -> None:
    padded, alone = RandomEviction().score(step(4, 2, 30, empty=7)), RandomEviction().score(step(4, 2, 23))
    assert torch.equal(padded[1, :, 7:], alone[0])
