"""Scaled dot-product attention with grouped queries, over whatever a layer's cache holds.

Letters in shapes: query_head = kv_head * group; `query` new tokens look at `key` stored ones, the new ones among them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

Mask = Bool[Tensor, "#batch #kv_head #query key"]
"""True where a query may look at a key."""


def attend(
    query: Float[Tensor, "batch query_head query head_dim"],
    keys: Float[Tensor, "batch kv_head key head_dim"],
    values: Float[Tensor, "batch kv_head key value_dim"],
    mask: Mask | None,
    scaling: float | None,
    softcap: float | None = None,
    sinks: Float[Tensor, " query_head"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "batch query_head query value_dim"]:
    """Attention of new tokens over stored ones; without a mask every query sees every key.

    out = softmax(cap(q K^T * scaling)) V, where cap(x) = softcap * tanh(x / softcap) if given, and sinks add one
    logit a query head to the softmax's denominator only.

    The group of query heads that shares a key-value head is folded into the query axis, so keys and values are never
    repeated in memory.
    """
    batch, query_head, count, head_dim = query.shape
    kv_head = keys.shape[1]
    group = query_head // kv_head
    folded = query.reshape(batch, kv_head, group * count, head_dim)
    mask = fold_mask(mask, group)
    if softcap is None and sinks is None:
        out = F.scaled_dot_product_attention(folded, keys, values, mask, dropout, scale=scaling)
    else:
        weights = attention_weights(folded, keys, mask, scaling, softcap, sinks)
        out = F.dropout(weights, dropout).to(values.dtype) @ values
    return out.reshape(batch, query_head, count, values.shape[-1])


def attend_causally(
    query: Float[Tensor, "batch query_head query head_dim"],
    keys: Float[Tensor, "batch kv_head query head_dim"],
    values: Float[Tensor, "batch kv_head query value_dim"],
    scaling: float | None,
    dropout: float = 0.0,
) -> Float[Tensor, "batch query_head query value_dim"]:
    """Attention of a prompt over itself by the kernel that needs no mask in memory."""
    grouped = query.shape[1] != keys.shape[1]
    return F.scaled_dot_product_attention(
        query, keys, values, None, dropout, is_causal=True, scale=scaling, enable_gqa=grouped
    )


def attention_weights(
    folded: Float[Tensor, "batch kv_head query head_dim"],
    keys: Float[Tensor, "batch kv_head key head_dim"],
    mask: Bool[Tensor, "#batch #kv_head #query key"] | None,
    scaling: float | None,
    softcap: float | None = None,
    sinks: Float[Tensor, " query_head"] | None = None,
) -> Float[Tensor, "batch kv_head query key"]:
    """The softmax written out, in float32; `folded` carries the query heads of a group on its query axis."""
    scaling = keys.shape[-1] ** -0.5 if scaling is None else scaling
    return softmax_of_logits(folded @ keys.transpose(-1, -2), mask, scaling, softcap, sinks)


def softmax_of_logits(
    products: Float[Tensor, "batch kv_head query key"],
    mask: Bool[Tensor, "#batch #kv_head #query key"] | None,
    scaling: float,
    softcap: float | None = None,
    sinks: Float[Tensor, " query_head"] | None = None,
) -> Float[Tensor, "batch kv_head query key"]:
    """softmax(cap(products * scaling)) in float32, with sinks in the denominator; see `attend`.

    A query that may look at nothing, which only padding can be, looks at everything evenly.
    """
    logits = products.float().mul_(scaling)  # the products are nobody else's
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if mask is not None:
        # the smallest number and not -inf, of which a row without any key would make NaN
        logits = logits.masked_fill_(~mask, torch.finfo(logits.dtype).min)
    if sinks is None:
        return logits.softmax(dim=-1)
    # the sink of query head (kv, group) stands beside each of that head's queries
    sink = rearrange(sinks.float(), "(kv group) -> 1 kv group 1 1", kv=logits.shape[1])
    count = logits.shape[2] // sink.shape[2]
    column = rearrange(sink.expand(len(logits), -1, -1, count, 1), "b kv group query one -> b kv (group query) one")
    return torch.cat([logits, column], dim=-1).softmax(dim=-1)[..., :-1]


def fold_mask(mask: Mask | None, group: int) -> Bool[Tensor, "#batch #kv_head #folded_query key"] | None:
    """The mask for queries that carry their group on the query axis."""
    if mask is None or mask.shape[2] == 1:
        return mask
    return rearrange(mask.unsqueeze(2).expand(-1, -1, group, -1, -1), "b kv group query key -> b kv (group query) key")


def causal_mask(
    query: int, key: int, real: Bool[Tensor, "batch kv_head key"] | None, device: torch.device, skip: int = 0
) -> Mask | None:
    """What `query` of `key` stored tokens, the last ones but for `skip`, may look at: what came before, and no padding.

    Padding may look at itself, so that no row of the softmax is empty. Without padding and with one query it is None.
    """
    if query == 1 and not skip:
        if real is None:
            return None
        mask = real.unsqueeze(2).clone()
        mask[..., -1] = True
        return mask
    slots = torch.arange(key, device=device)
    newest = slots[key - skip - query : key - skip, None]
    mask = (slots[None, :] <= newest)[None, None]
    if real is None:
        return mask
    return mask & (real.unsqueeze(2) | (slots[None, :] == newest)[None, None])
