"""ThinK: the channels of keys that queries ask least for are not stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pith.attention import GroupReduction
from pith.attention.storage import Context, Packed, Part, Storage
from pith.core import DenseCache, Method, Paper, param


@dataclass(frozen=True, kw_only=True)
class ThinK(Storage):
    """Store a prompt's keys without the channels that matter least to the prompt's last queries.

        score_c = mean_i q_ic^2  mean_j k_jc^2        over the last `window` queries, and over all keys that are kept
        kept    = all channels but the int(pruning_ratio d) with the lowest scores, for each head     (section 3.3)

    Once, when the prompt was read and evicted: its keys, all but the last `recent_size`, lose those channels for good;
    newer keys and all values are stored whole. A query is multiplied with the channels that are there.

    Deviates: with grouped queries the squares of a group are reduced to one, so that each key is stored once; the
    authors repeat keys and choose for each query head, which holds as many times the bytes. Each further part of a
    prompt, or a further turn, chooses channels of its own from its own keys. Where an eviction behind the first leaves
    heads with different numbers of new keys, those that not all have are packed by the means of the keys alone. A
    prompt of at most `recent_size` tokens is left whole, where the authors' code fails. At least one channel is kept.
    """

    paper: ClassVar[Paper] = Paper(
        "2407.21018",
        "ThinK: Thinner Key Cache by Query-Driven Pruning",
        "Yuhui Xu, Zhanming Jie, Hanze Dong, Lei Wang, Xudong Lu, Aojun Zhou, Amrita Saha, Caiming Xiong, Doyen Sahoo",
        2024,
        "SalesforceAIResearch/ThinK",
    )
    per_head: ClassVar[bool] = True

    pruning_ratio: float = param(0.4, "share of the channels that is not stored", ge=0.0, le=1.0, sweep=(0.9, 0.0))
    recent_size: int = param(32, "last tokens of the prompt whose keys are stored whole", ge=0)
    window: int = param(32, "last queries of the prompt that choose", ge=1)
    group: GroupReduction = param("mean", "how the squares of the query heads that share a key-value head are made one")

    def refuses(self, other: Method) -> str | None:
        """Rotation turns channels in pairs, of which one may be gone."""
        if getattr(other, "raw", False):
            return f"{other.name} rotates keys when they are read, and {self.name} stores some of their channels only"
        return super().refuses(other)

    def due(self, part: Part, held: int, prefill: bool) -> int:
        """A prompt's keys, but for the last ones."""
        return max(held - self.recent_size, 0) if prefill and part == "keys" else 0

    def encode(self, x: Float[Tensor, "batch kv_head token dim"], part: Part, context: Context) -> Packed:
        """The channels that are kept, in their order, and which ones these are."""
        dim = x.shape[-1]
        count = max(dim - int(dim * self.pruning_ratio), 1)
        best = self.scores(x, context).topk(count, dim=-1).indices
        kept = torch.zeros((*x.shape[:2], 1, dim), dtype=torch.bool, device=x.device)
        kept.scatter_(3, best.unsqueeze(2), True)
        return Packed(
            {"channels": x.gather(3, _places(kept, count).expand(*x.shape[:3], -1))}, {"kept": kept}, x.shape[2], part
        )

    def scores(
        self, x: Float[Tensor, "batch kv_head token dim"], context: Context
    ) -> Float[Tensor, "batch kv_head dim"]:
        """mean q^2 mean k^2, or mean k^2 where there are no queries."""
        keys = x if context.rest is None else torch.cat([x, context.rest], dim=2)
        scores = _mean_square(keys, context.real)
        if context.query is None:
            return scores
        asks = None if context.asks is None else context.asks[:, None, -self.window :]
        squares = _mean_square(context.query[:, :, -self.window :], asks)
        return scores * reduce(squares, "b (kv group) d -> b kv d", self.group, kv=x.shape[1])

    def decode(self, packed: Packed) -> Float[Tensor, "batch kv_head token dim"]:
        """The channels in their places, and zeros in the others'."""
        channels, kept = packed.tokens["channels"], packed.groups["kept"]
        places = _places(kept, channels.shape[-1])
        if places.shape[2] > 1:
            places = places.repeat_interleave(packed.size, dim=2)[:, :, : packed.count]
        out = channels.new_zeros((*channels.shape[:3], kept.shape[-1]))
        return out.scatter_(3, places.expand_as(channels), channels)

    def dot(
        self, query: Float[Tensor, "batch kv_head query dim"], packed: Packed
    ) -> Float[Tensor, "batch kv_head query token"]:
        """The query's kept channels times the keys'."""
        channels, kept = packed.tokens["channels"], packed.groups["kept"]
        if kept.shape[2] > 1:
            return super().dot(query, packed)
        places = _places(kept, channels.shape[-1]).expand(*query.shape[:3], -1)
        return query.gather(3, places).to(channels.dtype) @ channels.transpose(-1, -2)

    def claimed(self, dense: DenseCache) -> float:
        """The pruned channels are a share of the keys, which are half of the cache."""
        return 1 - self.pruning_ratio / 2 * self.due("keys", dense.tokens, True) / max(dense.tokens, 1)


def _places(kept: Bool[Tensor, "batch kv_head group dim"], count: int) -> Int[Tensor, "batch kv_head group kept"]:
    """The indices of the channels that are kept, ascending."""
    return kept.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[..., :count]


def _mean_square(
    x: Float[Tensor, "batch heads token dim"], real: Bool[Tensor, "batch some token"] | None
) -> Float[Tensor, "batch heads dim"]:
    """The mean of each channel's square over the tokens that are none of padding, in float32."""
    squares = x.float().square()
    if real is None:
        return squares.mean(dim=2)
    return (squares * real.unsqueeze(-1)).sum(dim=2) / real.sum(dim=-1).clamp(min=1).unsqueeze(-1)
