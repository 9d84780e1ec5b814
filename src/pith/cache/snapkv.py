"""SnapKV: the prompt's last queries vote for what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pith.attention import Eviction, GroupReduction, Step
from pith.core import Paper, param


@dataclass(frozen=True, kw_only=True)
class SnapKV(Eviction):
    """Keep the prompt positions that the prompt's last queries vote for, with their neighbours, and those queries' own.

        vote  = sum_{i in window} softmax(q_i K^T / sqrt(d))              over all keys, then without the window's own
        score = pool(mean_{query heads of the group} vote)                pool: maximum or mean over `kernel` neighbours
        kept  = the window and the best (budget - window)                               (section 4.2, listing 1)

    Once, when the prompt was read; decoded tokens come on top. A budget counts the window in.

    Deviates: with grouped queries the votes of a group are reduced to one before pooling and each pair is stored once;
    the authors repeat keys and values for every query head and choose for each, which holds as many times the bytes.
    The budget is a share of the prompt by default; the authors fix a capacity (give a token count for that). A window
    longer than the budget is cut to its latest tokens; the authors' code refuses it. Maxima of 7 are those of all
    configurations that they released; where one says nothing, their code takes means of 5.
    """

    paper: ClassVar[Paper] = Paper(
        "2404.14469",
        "SnapKV: LLM Knows What You are Looking for Before Generation",
        "Yuhong Li, Yingbing Huang, Bowen Yang, Bharat Venkitesh, Acyr Locatelli, Hanchen Ye, et al.",
        2024,
        "FasterDecoding/SnapKV",
    )

    window: int = param(32, "last prompt queries that vote; always kept", ge=1, sweep=(8, 16, 32))
    kernel: int = param(7, "width of the pooling over neighbouring keys", ge=1, odd=True, sweep=(3, 5, 7))
    pooling: Literal["max", "mean"] = param("max", "how neighbouring votes are pooled")
    group: GroupReduction = param("mean", "how the votes of the query heads that share a key-value head are made one")

    def score(self, step: Step) -> Float[Tensor, "batch kv_head key"]:
        """The pooled votes; the window above all."""
        window = min(self.window, step.query.shape[2])
        votes = step.per_kv_head(step.attention(last=window).sum(dim=-2), self.group)
        earlier = pool(votes[..., : step.stored - window], self.kernel, self.pooling)
        return step.protect(F.pad(earlier, (0, window)), last=window)


def pool(
    votes: Float[Tensor, "batch kv_head key"], kernel: int, pooling: Literal["max", "mean"]
) -> Float[Tensor, "batch kv_head key"]:
    """Each vote made the maximum or the mean of `kernel` neighbouring ones; past the ends there are zeros."""
    if votes.shape[-1] == 0:
        return votes
    pooled: torch.Tensor = (F.max_pool1d if pooling == "max" else F.avg_pool1d)(votes, kernel, 1, kernel // 2)
    return pooled
