"""Pith's attention function and mask function, as Transformers' interfaces take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function, sdpa_mask

from pith.attention import in_flight
from pith.attention.attend import attend, attend_causally, causal_mask
from pith.attention.call import Call
from pith.attention.given import NO_ATTENTIONS
from pith.attention.gradients import guard
from pith.attention.layer import LayerCache
from pith.attention.uncompiled import uncompiled
from pith.core import InputError, ModelError

NAME = "pith"
"""The word for `model.set_attn_implementation`."""


_USED = frozenset({"position_ids", "softcap", "s_aux", "is_causal"})
_WITHOUT_EFFECT = frozenset(
    {
        "sliding_window",  # which the mask has
        *("cache_position", "position_embeddings", "token_type_ids", "num_items_in_batch", "logits_to_keep", "labels"),
        *("use_cache", "return_dict", "output_attentions", "output_hidden_states", "output_router_logits"),
    }
)
"""What a model may hand to its attention function and what does not change the result."""


def register() -> None:
    """Makes `NAME` known to Transformers; importing Pith does not."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention of one layer: through its `LayerCache` where the cache is Pith's, else as the model means it.

    Returns:
        The output as [batch, query, query_head, value_dim], and None: attention weights are not handed out.

    Raises:
        InputError: attention weights are asked for.
        ModelError: the model hands over something that may change the result and that Pith does not know.
    """
    if torch.compiler.is_compiling():
        return _attention(module, query, key, value, attention_mask, scaling, dropout, **kwargs)
    if kwargs.get("output_attentions"):
        raise InputError(NO_ATTENTIONS)
    for name in sorted(kwargs.keys() - _USED - _WITHOUT_EFFECT):
        if kwargs[name] is not None and kwargs[name] is not False:
            raise ModelError(
                f"{type(module).__name__} hands {name!r} to its attention function, which Pith does not know; Pith "
                "does not serve models whose attention takes more than queries, keys, values and a mask"
            )
    call = Call(
        module=module,
        mask=attention_mask,
        positions=kwargs.get("position_ids"),
        scaling=scaling,
        softcap=kwargs.get("softcap"),
        sinks=kwargs.get("s_aux"),
        dropout=dropout,
    )
    layer: LayerCache | None = in_flight.take(getattr(module, "layer_idx", None))
    if layer is not None:
        out = layer.attend(call, query, key, value).transpose(1, 2).contiguous()
        if layer.store.cut:
            held_by = layer.answers.storage or (layer.evictor and layer.evictor.eviction)
            out = guard(out, held_by.name if held_by else "the cache")
        return out, None
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    return _without_pith(call, query, key, value, bool(causal)).transpose(1, 2).contiguous(), None


_attention = uncompiled(attention)


def _without_pith(call: Call, query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Attention of a layer that is left alone, or of a forward without a cache."""
    seen = call.mask
    if seen is None and causal and query.shape[2] > 1:
        if call.plain and query.shape[2] == key.shape[2]:
            return attend_causally(query, key, value, call.scaling, call.dropout)
        seen = causal_mask(query.shape[2], key.shape[2], None, query.device)
    elif seen is not None and seen.ndim == 2:
        real = seen[:, None, -key.shape[2] :].bool()
        seen = causal_mask(query.shape[2], key.shape[2], real, query.device)
    elif seen is not None and seen.dtype != torch.bool:
        if bool(((seen != 0) & (seen > torch.finfo(seen.dtype).min / 2)).any()):
            raise ModelError(
                f"{type(call.module).__name__} adds a mask with values other than 0 and -inf to its attention logits, "
                "which Pith does not serve"
            )
        seen = seen == 0
    return attend(query, key, value, seen, call.scaling, call.softcap, call.sinks, call.dropout)


def mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """The padding mask itself, [batch, tokens], for causal layers; None where nothing is padded.

    Sliding windows and other patterns get the mask that they would get with sdpa. Masks are made before the first
    layer, so nothing can be in flight: what an interrupted forward left there is forgotten.
    """
    if torch.compiler.is_compiling():
        given = (batch_size, q_length, kv_length, q_offset, kv_offset, mask_function, attention_mask, local_size)
        return _mask(*given, **kwargs)
    in_flight.clear()
    if local_size is None and mask_function is causal_mask_function:
        return None if attention_mask is None or bool(attention_mask.all()) else attention_mask
    kwargs["allow_is_causal_skip"] = False
    pattern: Tensor = sdpa_mask(
        batch_size, q_length, kv_length, q_offset, kv_offset, mask_function, attention_mask, local_size, **kwargs
    )
    return pattern


_mask = uncompiled(mask)
