"""KeyDiff: keys that point elsewhere than the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pith.attention import Eviction, Step
from pith.core import Paper


@dataclass(frozen=True, kw_only=True)
class KeyDiff(Eviction):
    """Keep the pairs whose keys are least similar to the average direction of the keys; no query is asked.

        anchor  = mean_j k_j / ||k_j||
        score_j = -cos(k_j, anchor)

    Meant for prompts that are read in blocks: each block is evicted when it was read, and each decoded token drops one
    pair, so that memory is bounded by the budget and one block.

    Deviates: the authors published no code; rotated keys are compared, and decoding evicts at every token, which the
    paper leaves open. Recent tokens are not protected.
    """

    paper: ClassVar[Paper] = Paper(
        "2504.15364",
        "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in Resource-Constrained "
        "Environments",
        "Junyoung Park, Dalton Jones, Matthew J. Morse, Raghavv Goel, Mingu Lee, Chris Lott",
        2025,
    )
    every_step: ClassVar[bool] = True

    def score(self, step: Step) -> Float[Tensor, "batch kv_head key"]:
        """The less like the anchor, the better; slots without a token have no part in it."""
        direction = F.normalize(step.keys.float(), dim=-1)
        real = step.real.unsqueeze(-1).to(direction.dtype)
        anchor = (direction * real).sum(dim=-2, keepdim=True)
        scores: torch.Tensor = -F.cosine_similarity(direction, anchor, dim=-1)
        return scores
