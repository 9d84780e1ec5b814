"""Key norm: small keys are the ones that are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pith.attention import Eviction, Step
from pith.core import Paper


@dataclass(frozen=True, kw_only=True)
class KeyNorm(Eviction):
    """Keep the pairs whose keys have the smallest norm; no query is asked.

        score_j = -||k_j||_2                                                                        (section 3)

    Rotation changes no norm, so it does not matter that keys are rotated. Neither first nor recent tokens are
    protected: the paper relies on the sinks having the smallest keys.

    Deviates: it evicts when a prompt was read; the authors' function is called after every forward of a stream, past a
    length of its own (`prune_after`), and can leave layers out. A share is rounded down; the authors round up. Kept
    pairs stay in position order; the authors store them by norm.
    """

    paper: ClassVar[Paper] = Paper(
        "2406.11430",
        "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression",
        "Alessio Devoto, Yu Zhao, Simone Scardapane, Pasquale Minervini",
        2024,
        "alessiodevoto/l2compress",
    )

    def score(self, step: Step) -> Float[Tensor, "batch kv_head key"]:
        """The smaller the key, the better."""
        norms: Tensor = torch.linalg.vector_norm(step.keys.float(), dim=-1)
        return -norms
