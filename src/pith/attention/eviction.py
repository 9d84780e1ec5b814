"""The contract of methods that answer: which pairs are kept?"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention.step import Step
from pith.core import Budget, Method, param, parse_budget


@dataclass(frozen=True, kw_only=True)
class Eviction(Method):
    """Keeps the best-scored pairs of each key-value head and frees the others.

    A method writes `score`; this class keeps the best within the budget. A prompt is read whole before it evicts; each
    further part of a prompt, or a further turn, evicts again when it was read, with a share taken of everything seen.
    Decoded tokens come on top, unless the method evicts at every step: then the count stays what the prompt left.

    Class attributes:
        every_step: whether each decoded token evicts one pair.
        renumbers: whether stored pairs are placed at their index in the cache, as if the dropped ones had never been.
    """

    question: ClassVar[str] = "which pairs are kept?"
    contract: ClassVar[str] = "eviction"
    every_step: ClassVar[bool] = False
    renumbers: ClassVar[bool] = False

    budget: Budget = param(0.5, "what is kept: a share of the prompt, a token count, or bytes for one sequence")

    @abstractmethod
    def score(self, step: Step) -> Float[Tensor, "batch heads key"]:
        """How much each stored pair is worth keeping; `heads` is kv_head, or 1 where all heads keep the same.

        Only the order counts. Slots without a token may get any score: they are never kept.
        """

    def limit(self, real: Int[Tensor, " batch"], token_bytes: int) -> Int[Tensor, " batch"]:
        """How many pairs each row may keep.

        Args:
            real: the number of tokens each row has seen.
            token_bytes: bytes that one token of one sequence takes over all layers that evict.
        """
        budget = parse_budget(self.budget)
        if budget.share is not None:
            # a tenth is no binary number: 0.1 * 30 must be 3
            return (real.double() * budget.share + 1e-6).long().clamp(min=1)
        tokens = budget.tokens if budget.tokens is not None else max(1, (budget.bytes or 0) // token_bytes)
        return torch.full_like(real, tokens)

    def claimed(self, tokens: int, token_bytes: int) -> float:
        """The budget as a share of the dense cache."""
        limit = int(self.limit(torch.tensor([tokens]), token_bytes)[0])
        return min(1.0, limit / max(tokens, 1))
