"""Ada-KV: heads whose attention is spread out keep more than heads whose attention is sharp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention import Allocation, Retention
from pith.cache.snapkv import SnapKV
from pith.core import Paper, param


@dataclass(frozen=True, kw_only=True)
class AdaKV(Allocation):
    """Divides a layer's budget between its heads by where the layer's best scores lie; another method scores.

        f_h   = how many of the layer's (heads * b) best scores are in head h          b: the budget without the window
        kept  = round(f_h (1 - floor_alpha) + int(b floor_alpha)) best pairs of head h, and the window
                                                                                    (section 3.3, algorithm 1)

    Pairs that the other method always keeps (SnapKV's window) are every head's own and are not divided. Heads take
    just the memory of what they keep.

    Deviates: nothing in the numbers. The share that all heads have alike is `floor_alpha`, as in the authors' code; an
    early version of the paper calls the other share alpha. Their code can drop pairs by rounding where all would fit;
    here all are kept then.
    """

    paper: ClassVar[Paper] = Paper(
        "2407.11550",
        "Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for Efficient LLM Inference",
        "Yuan Feng, Junlin Lv, Yukun Cao, Xike Xie, S. Kevin Zhou",
        2024,
        "FFY0/AdaKV",
    )
    ragged: ClassVar[bool] = True

    of: Retention = param(SnapKV(), "the eviction whose scores and budget are taken")
    floor_alpha: float = param(0.2, "the share of the budget that every head has alike", ge=0.0, le=1.0)

    def split(
        self, scores: Float[Tensor, "batch kv_head key"], limit: Int[Tensor, " batch"]
    ) -> Int[Tensor, "batch kv_head"]:
        """See the class."""
        own = scores == float("inf")
        window = own.sum(dim=-1)
        budget = (limit - window.amax(dim=-1)).clamp(min=0)
        ranked = scores.masked_fill(own, float("-inf")).flatten(1).argsort(dim=-1, descending=True, stable=True)
        wins = torch.arange(ranked.shape[-1], device=scores.device) < (budget * scores.shape[1]).unsqueeze(-1)
        head = (ranked // scores.shape[-1]).masked_fill(~wins, scores.shape[1])
        won = torch.zeros(len(scores), scores.shape[1] + 1, device=scores.device)
        won.scatter_add_(1, head, torch.ones_like(head, dtype=won.dtype))
        alike = (budget * self.floor_alpha).floor().unsqueeze(-1)
        return torch.round(won[:, :-1] * (1 - self.floor_alpha) + alike).long() + window
