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

    Deviates: nothing in the numbers that they keep, in float32 (see `Retention`). The share that all heads have alike
    is `floor_alpha`, as in the authors' code; an early version of the paper calls the other share alpha. Their rounding
    can drop a few pairs where all would fit; here all are kept then. With grouped queries a key-value head is a head,
    as with their gqa_support; without it they choose for each query head, which holds as many times the bytes. Their
    `normalize`, which no command of theirs sets, is left out. A window longer than the budget is cut to its latest
    tokens.
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
    floor_alpha: float = param(
        0.2, "the share of the budget that every head has alike", ge=0.0, le=1.0, sweep=(0.0, 0.2, 0.5)
    )

    def split(
        self, scores: Float[Tensor, "batch kv_head key"], limit: Int[Tensor, " batch"]
    ) -> Int[Tensor, "batch kv_head"]:
        """See the class."""
        own, heads = scores == float("inf"), scores.shape[1]
        window = torch.minimum(own.sum(dim=-1), limit.unsqueeze(-1))
        budget = limit - window.amax(dim=-1)
        ranked = scores.masked_fill(own, float("-inf")).flatten(1).argsort(dim=-1, descending=True, stable=True)
        wins = torch.arange(ranked.shape[-1], device=scores.device) < (budget * heads).unsqueeze(-1)
        head = (ranked // scores.shape[-1]).masked_fill(~wins, heads)
        won = torch.zeros(len(scores), heads + 1, device=scores.device, dtype=torch.float32)
        won.scatter_add_(1, head, torch.ones_like(head, dtype=won.dtype))
        alike = (budget.double() * self.floor_alpha).floor().unsqueeze(-1)
        share = torch.round(won[:, :-1] * (1 - self.floor_alpha) + alike.float()).long() + window
        held = (scores != float("-inf")).sum(dim=-1)
        fits = held.sum(dim=-1, keepdim=True) <= heads * limit.unsqueeze(-1)
        return torch.where(fits, held, share)
