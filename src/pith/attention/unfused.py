"""Attention where no fused kernel can take what is stored as it is."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from pith.attention.step import BLOCK, Step


def renumbered(step: Step) -> tuple[Tensor, Tensor]:
    """Queries and keys, rotated at their indices among what is stored."""
    assert step.rotor is not None
    index = (step.real.cumsum(dim=-1) - 1).clamp(min=0)
    own = slice(step.stored - step.query.shape[2], step.stored)
    query = step.rotor.unrotate(step.query, step.rotor.text(step.positions[:, :1, own]))
    return step.rotor.rotate(query, index[:, :1, own]), step.rotor.rotate(step.store.keys, index)


def written_out(step: Step) -> Float[Tensor, "batch query_head query value_dim"]:
    """The attention over a store that no fused kernel can read."""
    outs, count = [], step.query.shape[2]
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        weights = step.attention(size, skip=count - start - size)
        folded = rearrange(weights, "b (kv group) query key -> b kv (group query) key", kv=step.kv_head)
        out = step.store.mix(folded).to(step.query.dtype)
        outs.append(rearrange(out, "b kv (group query) dim -> b (kv group) query dim", query=size))
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)
