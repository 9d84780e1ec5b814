"""The contract of methods that answer: which kept pairs does a query read?"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention.step import Step
from pith.core import Method, param


@dataclass(frozen=True)
class Part:
    """Some of the stored pairs, and where they and the queries stand while they are read.

    Attributes:
        index: the slots, [batch, heads, read], or [batch, heads, query, read] where each query reads its own; heads is
            1 where all read the same, kv_head, or query_head. Negative entries are none. No query reads a slot twice.
        keys_at: [batch or 1, read], the positions that the keys are rotated at; None is their place in the text.
        query_at: [batch or 1, query], the positions that the queries are rotated at; None is their place in the text.
        window: a query reads only the keys that stand less than so many slots before it; None is no such limit.
        beyond: a query reads only the keys that stand at least so many slots before it; None is no such limit.
    """

    index: Int[Tensor, "batch heads read"] | Int[Tensor, "batch heads query read"]
    keys_at: Int[Tensor, "rows read"] | None = None
    query_at: Int[Tensor, "rows query"] | None = None
    window: int | None = None
    beyond: int | None = None


@dataclass(frozen=True, kw_only=True)
class Reading(Method):
    """Lets each query read a part of what is stored, which stays whole.

    A method writes `select`. What it keeps from step to step it puts into `Step.memory`. With `offload="cpu"` the pairs
    are held in main memory and what is read is brought to the model's device.

    Class attributes:
        raw: whether keys are held before their rotation, so that they can be read at any position.
        whole_at_end: whether the short block of a prompt is the first and not the last, so that the blocks of a row are
            the same alone and behind padding.
        restartable: whether `select` gives the same after its memory was emptied, so that tokens can be taken back.
    """

    question: ClassVar[str] = "which kept pairs does a query read?"
    contract: ClassVar[str] = "reading"
    raw: ClassVar[bool] = False
    whole_at_end: ClassVar[bool] = False
    restartable: ClassVar[bool] = False

    offload: Literal["none", "cpu"] = param("none", "where the pairs are held: with the model, or in main memory")

    @property
    def block(self) -> int | None:
        """The queries of a prompt that share a choice; None reads prompts whole, and densely."""
        return None

    @abstractmethod
    def select(self, step: Step) -> Sequence[Part] | None:
        """The parts that these queries read, the new tokens among them; None is everything.

        A key is never read by an earlier query, whatever the parts say. One softmax goes over all parts.

        Args:
            step: its queries are one decoded token's, or those of one block of a prompt; the store holds nothing later.
        """

    def observe(
        self, step: Step, parts: Sequence[Part], weights: Sequence[Float[Tensor, "batch query_head query _"]]
    ) -> None:
        """Is told the attention weights of what was just read, if a method overrides it."""


def read_count(budget: float | int, stored: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """The tokens that a budget means: a share of what is stored where it is a fraction, else a count."""
    if isinstance(budget, float):
        return (stored.double() * budget + 1e-6).long().clamp(min=1)
    return torch.full_like(stored, budget)


def tokens_held(step: Step) -> Int[Tensor, "batch heads 1"]:
    """The number of tokens that each row holds, padding not counted; one head where all heads hold the same."""
    if not step.padded:
        return torch.full((len(step.query), 1, 1), step.stored, device=step.query.device)
    return step.real.sum(dim=-1, keepdim=True)


def slots_of(step: Step, ranks: Int[Tensor, "batch heads n"]) -> Int[Tensor, "batch heads n"]:
    """The slots of tokens that are given by their index among those that their row and head holds; else -1.

    A method that counts tokens in this way gives a padded row what it gives alone.
    """
    gone = ranks < 0
    if not step.padded:
        return ranks.masked_fill(gone | (ranks >= step.stored), -1)
    ends = step.real.cumsum(dim=-1)
    heads = max(ends.shape[1], ranks.shape[1])
    ends, ranks = (x.expand(-1, heads, -1).contiguous() for x in (ends, ranks))
    return torch.searchsorted(ends, ranks + 1).masked_fill(gone | (ranks >= ends[..., -1:]), -1)
