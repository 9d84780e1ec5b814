"""All that a method may look at in one layer of one forward."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pith.attention.attend import causal_mask, fold_mask, softmax_of_logits
from pith.attention.rotary import Rotor
from pith.attention.store import Store

GroupReduction = Literal["mean", "max", "sum"]
"""How the query heads that share a key-value head are made one."""

BLOCK, CPU_BLOCK = 256, 32
"""Queries whose attention is written out at a time; on a processor it is to stay in the processor's cache."""


def query_block(tensor: Tensor) -> int:
    """Return how many queries' attention is written out at a time where a tensor is."""
    return CPU_BLOCK if tensor.device.type == "cpu" else BLOCK


@dataclass(frozen=True)
class Step:
    """One layer of one forward: after its attention was computed, for an eviction; before, for a reading.

    Attributes:
        query: the new tokens' queries, rotated at their places in the text.
        store: what the layer holds, the new tokens last.
        layer, depth: the layer's index, and the number of layers.
        prefill: whether a prompt, or a part of one, is read; else one token is decoded.
        scaling, softcap, sinks: what the layer's attention multiplies, caps and adds (see `attend`).
        rotor: the layer's rotation; None unless a method of the recipe asked for it (`raw`, `renumbers`, `rotates`).
        raw: whether the store holds keys before their rotation.
        limit: how many pairs each row may keep, on average over its heads; None where nothing is to be dropped.
        memory: tensors [batch, ...] and other values that a reading keeps in the layer from step to step; they count
            as bytes held, and are emptied whenever pairs are let go.
    """

    query: Float[Tensor, "batch query_head query head_dim"]
    store: Store
    layer: int
    depth: int
    prefill: bool
    scaling: float | None = None
    softcap: float | None = None
    sinks: Float[Tensor, " query_head"] | None = None
    rotor: Rotor | None = None
    raw: bool = False
    limit: Int[Tensor, " batch"] | None = None
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def stored(self) -> int:
        """The number of stored slots."""
        return self.store.length

    @property
    def padded(self) -> bool:
        """Whether a slot may hold no token."""
        return self.store.padded

    @cached_property
    def keys(self) -> Float[Tensor, "batch kv_head key head_dim"]:
        """Everything stored, the new tokens last, in position order, rotated as in the text."""
        if not self.raw:
            return self.store.keys
        assert self.rotor is not None
        return self.rotor.rotate(self.store.keys, self.rotor.text(self.store.positions))

    @cached_property
    def values(self) -> Float[Tensor, "batch kv_head key value_dim"]:
        """Everything stored."""
        return self.store.values

    @cached_property
    def positions(self) -> Int[Tensor, "batch heads key"]:
        """Each pair's index among the real tokens of its row; -1 is no token. One head where all hold the same."""
        return self.store.positions

    @property
    def carried(self) -> Float[Tensor, "batch heads key"]:
        """The numbers that the method's `carry` gave for each pair when it was last called; 0 for the new ones."""
        kept = self.store.carried
        return torch.zeros_like(self.positions[:, :1], dtype=torch.float32) if kept is None else kept

    @cached_property
    def real(self) -> Bool[Tensor, "batch heads key"]:
        """Which slots hold a token."""
        return self.store.real

    @property
    def kv_head(self) -> int:
        """The number of key-value heads."""
        return self.store.key_column.heads

    @property
    def value_dim(self) -> int:
        """The size of a value."""
        return self.store.value_column.dim

    def attention(self, last: int, skip: int = 0) -> Float[Tensor, "batch query_head query key"]:
        """softmax(q K^T / sqrt(d)) of `last` of the new tokens over everything stored, in float32.

        Rows of padding are zero.

        Args:
            last: how many new tokens, the newest ones.
            skip: how many of the newest are left out.
        """
        end = self.query.shape[2] - skip
        query = self.query[:, :, max(end - last, 0) : end]
        count = query.shape[2]
        group = query.shape[1] // self.kv_head
        folded = rearrange(query, "b (kv group) query dim -> b kv (group query) dim", kv=self.kv_head)
        mask = fold_mask(causal_mask(count, self.stored, self.real if self.padded else None, query.device, skip), group)
        logits = folded @ self.keys.transpose(-1, -2) if self.raw else self.store.dot(folded)
        scaling = query.shape[-1] ** -0.5 if self.scaling is None else self.scaling
        weights = softmax_of_logits(logits, mask, scaling, self.softcap, self.sinks)
        weights = rearrange(weights, "b kv (group query) key -> b (kv group) query key", group=group)
        if self.padded:
            asks = self.real[:, :, self.stored - skip - count : self.stored - skip]
            asks = asks.repeat_interleave(weights.shape[1] // asks.shape[1], dim=1)
            weights = weights * asks.unsqueeze(-1)
        return weights

    def received(self) -> Float[Tensor, "batch query_head key"]:
        """The attention that each stored pair gets from all the new tokens together, in float32."""
        count = self.query.shape[2]
        block = query_block(self.query) if self.store.plain else BLOCK  # what is packed is decoded for each block
        total = self.attention(min(block, count)).sum(dim=2)
        for skip in range(block, count, block):
            total += self.attention(block, skip).sum(dim=2)
        return total

    def per_kv_head(
        self, x: Float[Tensor, "batch query_head key"], reduction: GroupReduction = "mean"
    ) -> Float[Tensor, "batch kv_head key"]:
        """The query heads of each group made one."""
        return reduce(x, "b (kv group) key -> b kv key", reduction, kv=self.kv_head)

    def protect(
        self, scores: Float[Tensor, "batch heads key"], first: int = 0, last: int = 0
    ) -> Float[Tensor, "batch heads key"]:
        """The scores, with each row's first and last tokens above all others; of these the latest count most."""
        newest = self.stored - torch.arange(self.stored, device=scores.device)
        kept = newest <= last
        if first:
            kept = kept | (self.positions < first)
        return scores.masked_fill(kept, float("inf"))
