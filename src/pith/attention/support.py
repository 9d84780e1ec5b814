"""Which models and which of their layers Pith serves."""

from __future__ import annotations

from typing import Any

from transformers.cache_utils import DynamicCache, DynamicLayer, LinearAttentionCacheLayerMixin

from pith.attention.interface import NAME, register
from pith.core import ModelError


def require_model(model: Any) -> None:
    """Refuse what is not a Transformers model.

    Raises:
        ModelError: it is not.
    """
    if getattr(model, "config", None) is None or not hasattr(model, "set_attn_implementation"):
        name = type(model).__name__
        raise ModelError(f"{name} is no Transformers model: it has no config or no set_attn_implementation")


def plan_layers(model: Any) -> tuple[DynamicCache, dict[int, str]]:
    """The cache that Transformers would make, and why which of its layers are left alone."""
    require_model(model)
    name, config = type(model).__name__, model.config
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{name} is an encoder-decoder model; Pith takes decoder-only ones")
    decoder = config.get_text_config(decoder=True)
    if "reuse" in (getattr(decoder, "kv_sharing_modes", None) or ()):
        raise ModelError(f"{name} shares keys and values between layers, which Pith does not serve yet")
    plain = DynamicCache(config=config)
    left_alone: dict[int, str] = {}
    for index, layer in enumerate(plain.layers):
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            left_alone[index] = "linear attention"
        elif getattr(layer, "is_sliding", False):
            left_alone[index] = f"sliding window of {layer.sliding_window}"
        elif type(layer) is not DynamicLayer:
            left_alone[index] = type(layer).__name__
    return plain, left_alone


def set_attention(model: Any, implementation: str | None) -> None:
    """Set the model's attention implementation, Pith's or another; nothing where it is that already.

    Raises:
        ModelError: the model does not take it.
    """
    if implementation == NAME:
        register()
    if model.config._attn_implementation == implementation:
        return
    model.set_attn_implementation(implementation)
    if model.config._attn_implementation != implementation:
        raise ModelError(
            f"{type(model).__name__} does not route its attention through Transformers' AttentionInterface"
        )
