"""Random eviction: the floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pith.attention import Eviction, Step
from pith.core import Paper, param


@dataclass(frozen=True, kw_only=True)
class RandomEviction(Eviction):
    """Keep pairs at random: the floor that every other eviction must beat to be worth its name.

        score(layer, head, position) = hash(seed, layer, head, position), even over [0, 1)

    A position's score depends on nothing else, so a row scores the same alone, in a padded batch and in any order.

    Deviates: nothing; it is Pith's own baseline.
    """

    paper: ClassVar[Paper] = Paper("", "Random eviction (a baseline of Pith's own)", "The Pith authors", 2026)

    seed: int = param(0, "what the choice depends on", ge=0)

    def score(self, step: Step) -> Float[Tensor, "batch kv_head key"]:
        """See the class: an even random number for each pair."""
        heads = torch.arange(step.keys.shape[1], device=step.keys.device)[:, None]
        stream = mix(mix(torch.tensor(self.seed, device=heads.device)) + step.layer * 1_000_003 + heads)
        bits = mix(stream + step.positions.long())
        return (bits >> 40).float() / 2**24 + 0.5


def mix(x: torch.Tensor) -> torch.Tensor:
    """An invertible mixing of 64-bit integers (SplitMix64's finaliser); products wrap round, shifts bring in zeros."""

    def shifted(y: torch.Tensor, bits: int) -> torch.Tensor:
        return (y >> bits) & ((1 << (64 - bits)) - 1)

    x = x.long() * -7046029254386353131
    x = (x ^ shifted(x, 30)) * -4658895280553007687
    x = (x ^ shifted(x, 27)) * -7723592293110705685
    return x ^ shifted(x, 31)
