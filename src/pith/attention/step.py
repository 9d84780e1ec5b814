"""All that a method may look at in one layer of one forward."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pith.attention.attend import attention_weights, causal_mask, fold_mask

GroupReduction = Literal["mean", "max", "sum"]
"""How the query heads that share a key-value head are made one."""


@dataclass(frozen=True)
class Step:
    """One layer of one forward, after its attention was computed.

    Attributes:
        query: the new tokens' queries, as attention used them.
        keys, values: everything stored, the new tokens last, as attention used them, in position order.
        positions: each pair's index among the real tokens of its row; -1 is no token. One head where all hold the same.
        padded: whether a slot may be no token.
        layer, depth: the layer's index, and the number of layers.
        prefill: whether a prompt, or a part of one, was read; else one token was decoded.
        scaling, softcap, sinks: what the layer's attention multiplies, caps and adds (see `attend`).
    """

    query: Float[Tensor, "batch query_head query head_dim"]
    keys: Float[Tensor, "batch kv_head key head_dim"]
    values: Float[Tensor, "batch kv_head key value_dim"]
    positions: Int[Tensor, "batch heads key"]
    padded: bool
    layer: int
    depth: int
    prefill: bool
    scaling: float | None = None
    softcap: float | None = None
    sinks: Float[Tensor, " query_head"] | None = None

    @property
    def stored(self) -> int:
        """The number of stored slots."""
        return self.keys.shape[2]

    @cached_property
    def real(self) -> Bool[Tensor, "batch heads key"]:
        """Which slots hold a token."""
        return self.positions >= 0

    def attention(self, last: int) -> Float[Tensor, "batch query_head query key"]:
        """softmax(q K^T / sqrt(d)) of the last `last` new tokens over everything stored, in float32.

        Rows of padding are zero.
        """
        query = self.query[:, :, -last:]
        count, kv_head = query.shape[2], self.keys.shape[1]
        group = query.shape[1] // kv_head
        folded = rearrange(query, "b (kv group) query dim -> b kv (group query) dim", kv=kv_head)
        mask = causal_mask(count, self.stored, self.real if self.padded else None, query.device)
        if mask is not None:
            mask = fold_mask(mask, group)
        weights = attention_weights(folded, self.keys, mask, self.scaling, self.softcap, self.sinks)
        weights = rearrange(weights, "b kv (group query) key -> b (kv group) query key", group=group)
        if self.padded:
            asks = self.real[:, :, -count:]
            asks = asks.repeat_interleave(weights.shape[1] // asks.shape[1], dim=1)
            weights = weights * asks.unsqueeze(-1)
        return weights

    def per_kv_head(
        self, x: Float[Tensor, "batch query_head key"], reduction: GroupReduction = "mean"
    ) -> Float[Tensor, "batch kv_head key"]:
        """The query heads of each group made one."""
        return reduce(x, "b (kv group) key -> b kv key", reduction, kv=self.keys.shape[1])

    def protect(
        self, scores: Float[Tensor, "batch heads key"], first: int = 0, last: int = 0
    ) -> Float[Tensor, "batch heads key"]:
        """The scores, with each row's first and last tokens above all others; of these the latest count most."""
        newest = self.stored - torch.arange(self.stored, device=scores.device)
        kept = newest <= last
        if first:
            kept = kept | (self.positions < first)
        return scores.masked_fill(kept, float("inf"))
