"""Recycled Attention: between full steps, decoded tokens read what the last full step attended to most."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pith.attention import GroupReduction, Part, Reading, Step
from pith.cache.snapkv import pool
from pith.core import Paper, param


@dataclass(frozen=True, kw_only=True)
class RecycledAttention(Reading):
    """Every `stride`-th decoded token reads everything; those between read the `k` pairs that it attended to most.

        full step:      C = top k of pool(attention), for each key-value head        (the prompt's last token's first)
        recycled step:  read = C and the new token;  C = read without the pair that got the least attention
        a step is full  if stride - 1 steps were not, or, at each `interval`-th of them, cos(q, q of the last full) < s

    Nothing is evicted, so what one step leaves out the next full step may read again. It saves time, not bytes. After
    a `crop`, or after an eviction in any row of a batch, the next step is full in all rows.

    Deviates: there is no code of the authors, and only summaries of the paper, to hold it against. These leave open how
    the attention of the query heads of a group is made one (here `group`), whether sinks or new tokens are always kept
    (here none are), what is compared to start a full step (here the queries of all heads of a layer as one vector,
    rotated at their places, for each sequence and layer), and whether attention is pooled (`kernel=1` is not). Here it
    is pooled as SnapKV does it: a token to be copied is followed by one that only the next step attends to. The paper
    holds C as a second, smaller cache; here C is a list of slots.
    """

    paper: ClassVar[Paper] = Paper(
        "2411.05787",
        "Recycled Attention: Efficient inference for long-context language models",
        "Fangyuan Xu, Tanya Goyal, Eunsol Choi",
        2024,
        "",
    )

    k: int = param(4096, "pairs that a recycled step reads, besides the new one", ge=1, sweep=(32, 4096))
    stride: int = param(
        50, "decoded tokens from one full step to the next; 1 reads everything", ge=1, sweep=(100, 50, 20, 10, 5)
    )
    kernel: int = param(7, "width of the pooling over neighbours where C is chosen anew; 1 is none", ge=1, odd=True)
    s: float = param(-1.0, "cosine of queries below which a step becomes full; -1 is never", ge=-1.0, le=1.0)
    interval: int = param(5, "recycled steps from one comparison of queries to the next", ge=1)
    group: GroupReduction = param("mean", "how the attention of the query heads of a key-value head is made one")

    @property
    def block(self) -> int:
        """A prompt is one block: it is read densely, but its last token makes the first choice."""
        return sys.maxsize

    def select(self, step: Step) -> Sequence[Part] | None:
        """Everything, or what is recycled and the new token."""
        full = self._is_full(step)
        self._note(step, full)
        if step.stored <= self.k:
            step.memory.pop("chosen", None)
            return None
        slots = torch.arange(step.stored, device=full.device)
        chosen = step.memory.get("chosen", slots[:-1].expand(len(full), step.kv_head, -1))
        if bool(full.any()):
            step.memory["chosen"] = torch.where(full[:, None, None], self._best(step), chosen[..., : self.k])
        if bool(full.all()):
            return None
        read = torch.cat([chosen, slots[-1:].expand_as(chosen[..., :1])], dim=-1)
        if bool(full.any()):  # rows of one batch that are at different steps
            read = F.pad(read, (0, step.stored - read.shape[-1]), value=-1)
            read = torch.where(full[:, None, None], slots, read)
        return [Part(read)]

    def observe(
        self, step: Step, parts: Sequence[Part], weights: Sequence[Float[Tensor, "batch query_head query read"]]
    ) -> None:
        """Drops the pair with the least attention: the newest takes its place."""
        read = parts[0].index[..., : self.k + 1]
        votes = step.per_kv_head(weights[0][:, :, 0, : self.k + 1], self.group)
        none = step.store.positions_at(read) < 0 if step.padded else read < 0
        worst = votes.masked_fill(none, -1).argmin(dim=-1, keepdim=True)
        left = read.scatter(-1, worst, read[..., -1:])[..., :-1]
        full = (step.memory["since"] == 0)[:, None, None]
        step.memory["chosen"] = torch.where(full, step.memory["chosen"], left) if self.s > -1 else left

    def _is_full(self, step: Step) -> Bool[Tensor, " batch"]:
        """Which rows read everything in this step."""
        if step.prefill or "since" not in step.memory:
            return torch.ones(len(step.query), dtype=torch.bool, device=step.query.device)
        count = step.memory["since"] + 1
        full: Tensor = count >= self.stride
        if self.s > -1:
            alike = F.cosine_similarity(_asked(step).flatten(1), step.memory["query"].flatten(1), dim=-1)
            full = full | ((count % self.interval == 0) & (alike < self.s))
        return full

    def _note(self, step: Step, full: Bool[Tensor, " batch"]) -> None:
        """Counts the steps since the last full one, and keeps that one's query."""
        step.memory["since"] = torch.where(full, 0, step.memory.get("since", 0) + 1)
        if self.s > -1:
            query = _asked(step)
            step.memory["query"] = torch.where(full[:, None, None], query, step.memory.get("query", query))

    def _best(self, step: Step) -> Int[Tensor, "batch kv_head k"]:
        """The `k` slots that the newest token attends to most; -1 where a row has fewer. Of equal ones the earlier."""
        votes = pool(step.per_kv_head(step.attention(last=1)[:, :, 0], self.group), self.kernel, "max")
        best = votes.masked_fill(~step.real, -1).sort(dim=-1, descending=True, stable=True)
        return best.indices[..., : self.k].masked_fill(best.values[..., : self.k] < 0, -1)


def _asked(step: Step) -> Float[Tensor, "batch query_head head_dim"]:
    """The newest token's query."""
    return step.query[:, :, -1].float()
