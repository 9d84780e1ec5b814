"""Eight-bit pairs: the plain baseline of every storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pith.attention.storage import Context, Packed, Part, Storage
from pith.core import DenseCache, Paper


@dataclass(frozen=True, kw_only=True)
class KVCacheInt8(Storage):
    """Store each key and each value in eight bits a number, with one scale a token and head.

        s = max_c |x_c| / 127        code_c = round(x_c / s)        x'_c = code_c s

    Every token is packed when it was read.

    Deviates: nothing; it is Pith's own baseline.
    """

    paper: ClassVar[Paper] = Paper("", "Eight-bit cache (a baseline of Pith's own)", "The Pith authors", 2026)

    def due(self, part: Part, held: int, prefill: bool) -> int:
        """All of them."""
        return held

    def encode(self, x: Float[Tensor, "batch kv_head token dim"], part: Part, context: Context) -> Packed:
        """Codes, int8, and scales in the dtype of `x`."""
        scale = (x.abs().amax(dim=-1, keepdim=True).float() / 127).clamp(min=torch.finfo(x.dtype).tiny).to(x.dtype)
        code = (x / scale).round().clamp(-127, 127).to(torch.int8)
        return Packed({"code": code, "scale": scale}, {}, 1, part)

    def decode(self, packed: Packed) -> Float[Tensor, "batch kv_head token dim"]:
        """code * scale."""
        scale = packed.tokens["scale"]
        return packed.tokens["code"].to(scale.dtype) * scale

    def dot(
        self, query: Float[Tensor, "batch kv_head query dim"], packed: Packed
    ) -> Float[Tensor, "batch kv_head query token"]:
        """(q code) s, in float32: the codes are never multiplied out."""
        scale = packed.tokens["scale"].float().transpose(-1, -2)
        return query.float() @ packed.tokens["code"].float().transpose(-1, -2) * scale

    def mix(
        self, weights: Float[Tensor, "batch kv_head query token"], packed: Packed
    ) -> Float[Tensor, "batch kv_head query dim"]:
        """(w s) code, in float32."""
        scale = packed.tokens["scale"].float().transpose(-1, -2)
        return (weights.float() * scale) @ packed.tokens["code"].float()

    def claimed(self, dense: DenseCache) -> float:
        """Eight bits a number, and one scale a token and head."""
        return 1 / dense.number_bytes + 1 / dense.head_dim
