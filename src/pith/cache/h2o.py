"""H2O: the heavy hitters, which have received most attention so far, and recent tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from pith.attention import Eviction, GroupReduction, Step
from pith.core import Paper, param


@dataclass(frozen=True, kw_only=True)
class H2O(Eviction):
    """Keep the pairs that all queries so far have looked at most, and the most recent ones.

        F_j    = sum over all queries i since j was read of softmax(q_i K^T / sqrt(d))_j    over what was held at i
        recent = the last (recent_share * budget) tokens
        heavy  = the best (budget - recent) of the others by F                            (section 4.1, algorithm 1)

    It evicts after every forward, so that the cache stays at what the prompt left. The sums take 4 bytes for each pair.
    A dropped pair's sum is lost with it.

    The authors released four algorithms; this is the one that frees memory (`utils_real_drop`). The others only hide
    pairs by a mask, or let later queries count too, or keep one pair less as heavy.

    Deviates: one budget is given and `recent_share` divides it; the authors give heavy_ratio and recent_ratio, 0.1 of
    the prompt each by default, which is budget=0.2 here. Their class takes models without grouped queries and one
    sequence; here the sums of a group are made one, and each row of a batch has its own. A budget that is a share grows
    with each further part of a prompt; theirs is fixed.
    """

    paper: ClassVar[Paper] = Paper(
        "2306.14048",
        "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models",
        "Zhenyu Zhang, Ying Sheng, Tianyi Zhou, Tianlong Chen, Lianmin Zheng, Ruisi Cai, et al.",
        2023,
        "FMInference/H2O",
    )
    every_step: ClassVar[bool] = True

    recent_share: float = param(
        0.5, "share of the budget that the most recent tokens take", ge=0.0, le=1.0, sweep=(0.25, 0.5, 0.75)
    )
    group: GroupReduction = param("sum", "how the sums of the query heads that share a key-value head are made one")

    def carry(self, step: Step) -> Float[Tensor, "batch kv_head key"]:
        """F, with what this forward's queries add."""
        return step.carried + step.per_kv_head(step.received(), self.group)

    def score(self, step: Step) -> Float[Tensor, "batch kv_head key"]:
        """F; the recent tokens above all."""
        assert step.limit is not None
        recent = (step.limit.double() * self.recent_share + 1e-6).long()  # 9 * (4 / 9) must be 4
        newest = step.positions[..., -1:]
        return step.carried.masked_fill(step.positions > newest - recent[:, None, None], float("inf"))
