"""PyramidKV: low layers keep more than high layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from pith.attention import Allocation, Retention, Seat
from pith.cache.snapkv import SnapKV
from pith.core import Paper, param


@dataclass(frozen=True, kw_only=True)
class PyramidKV(Allocation):
    """Gives low layers, whose attention is spread out, a larger part of another method's budget than high layers.

        b    = budget - window                       the budget of a layer without the pairs that it always keeps
        low  = floor(b / beta)                       what the highest layer keeps of it; high = 2 b - low the lowest
        c_l  = high - l (high - low) / (L - 1)       kept in layer l, and the window       (authors' PyramidKVCluster)

    A layer cannot keep more than the n tokens there are: if high >= n - window, then high = n - window and
    low = 2 b - high. Prompts shorter than 2 b give each layer b. The window is the other method's parameter of that
    name; it is 0 where it has none.

    Deviates: the total is the other method's. The authors round the step (high - low) / (L - 1) down, so that their
    layers keep up to (L - 2) / 2 pairs each on average more than the budget (11.7 % at 64 pairs a layer in 32 layers,
    27 % at 128 in 80 layers, 0.02 % at 2048 in 32); here c_l is theirs less what they cut off, rounded so that the sum
    is exact. A method without a window leaves each layer one pair at least.
    """

    paper: ClassVar[Paper] = Paper(
        "2406.02069",
        "PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling",
        "Zefan Cai, Yichi Zhang, Bofei Gao, Yuliang Liu, Tianyu Liu, Keming Lu, et al.",
        2024,
        "Zefan-Cai/KVCache-Factory",
    )

    of: Retention = param(SnapKV(), "the eviction whose scores and budget are taken")
    beta: int = param(
        20, "how many times the highest layer's part goes into the mean part", ge=1, sweep=(5, 10, 20, 40)
    )

    def limit(self, real: Int[Tensor, " batch"], seat: Seat) -> Int[Tensor, " batch"]:
        """See the class; each row by its own length."""
        budget, window = self.of.limit(real, seat), _window(self.of)
        if seat.count == 1:
            return budget
        mean = (budget - window).clamp(min=0)
        high, low = ends(mean, real - window, self.beta, least=0 if window else 1)
        kept = high - lost(high - low, seat) - (high - low) // (seat.count - 1) * seat.index + window
        return torch.where((budget >= real) | (real < 2 * mean) | (mean == 0), budget, kept)


def ends(
    mean: Int[Tensor, " batch"], most: Int[Tensor, " batch"], beta: int, least: int = 0
) -> tuple[Int[Tensor, " batch"], Int[Tensor, " batch"]]:
    """What the lowest and the highest layer keep, where layers keep `mean`, and can keep `most`."""
    high = torch.minimum(2 * mean - (mean // beta).clamp(min=least), most)
    return high, 2 * mean - high


def lost(drop: Int[Tensor, " batch"], seat: Seat) -> Int[Tensor, " batch"]:
    """What a step of floor(drop / (L - 1)) leaves a layer too much: l / (L - 1) of the remainder.

    It is rounded down in the lower half of the layers and up in the upper half, so that layers l and L - 1 - l lose
    the remainder together.
    """
    last = seat.count - 1
    rest = drop % last
    if 2 * seat.index <= last:
        return rest * seat.index // last
    return rest - rest * (last - seat.index) // last


def _window(of: Retention) -> int:
    """The pairs that a method always keeps, in every layer."""
    while isinstance(of, Allocation):
        of = of.of
    return int(getattr(of, "window", 0))
