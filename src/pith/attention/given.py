"""Which cache a forward was given while a recipe is applied: Pith's takes its place, or the forward is refused."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from transformers.cache_utils import Cache, DynamicCache

from pith.attention.cache import PithCache
from pith.core import InputError, Recipe

_ALLOWED = "under pith.applied allowed are none, an empty DynamicCache, or recipe.cache(model)"


def replaces_cache(model: Any, recipe: Recipe, kwargs: dict[str, Any], replaced: Container[Any]) -> bool:
    """Return whether a forward with these arguments begins a new cache of Pith's.

    Args:
        model: the model.
        recipe: what is applied to it.
        kwargs: all arguments of the forward, by name.
        replaced: caches of callers whose place one of Pith's has taken already.

    Raises:
        InputError: the recipe could not act, or the given cache is not one that Pith's can take the place of.
    """
    given = kwargs.get("past_key_values")
    if kwargs.get("cache") is not None or kwargs.get("cache_params") is not None:
        name = "cache" if kwargs.get("cache") is not None else "cache_params"
        raise InputError(f"{name}={type(kwargs[name]).__name__} is not allowed; {_ALLOWED}, as past_key_values")
    if (reason := _without_cache(model, kwargs)) is not None and not (isinstance(given, PithCache) and reason[2]):
        if len(recipe) or given is not None:
            raise InputError(f"{reason[0]}, so {_short(recipe)} cannot act; {reason[1]}")
        return False
    if isinstance(given, PithCache):
        return False
    if given is not None:
        _require_replaceable(given, replaced)
    return True


def refuse_attentions(model: Any, kwargs: dict[str, Any]) -> None:
    """Refuse a forward that is asked for attention weights.

    Raises:
        InputError: it is.
    """
    asked = kwargs.get("output_attentions")
    if asked or (asked is None and getattr(model.config, "output_attentions", False)):
        raise InputError(NO_ATTENTIONS)


NO_ATTENTIONS = (
    "output_attentions=True is not allowed: Pith's attention gives no attention weights; set output_attentions=False "
    "in the call, in model.config and in model.generation_config"
)


def _without_cache(model: Any, kwargs: dict[str, Any]) -> tuple[str, str, bool] | None:
    """Return why a forward keeps no cache, what to do, and whether a given one is used anyway; None if it does."""
    if model.training and any(getattr(part, "gradient_checkpointing", False) for part in model.modules()):
        return (
            "gradient checkpointing switches the cache off in training mode",
            "call model.eval() or model.gradient_checkpointing_disable()",
            False,
        )
    asked = kwargs.get("use_cache")
    if asked is None and not _config_uses_cache(model):
        return "model.config.use_cache is False", "set model.config.use_cache = True or pass use_cache=True", True
    if asked is not None and not asked:
        return (
            "use_cache=False keeps no cache",
            "set use_cache=True in the call or in model.generation_config, or apply the recipe 'dense'",
            True,
        )
    return None


def _config_uses_cache(model: Any) -> bool:
    for config in (model.config, model.config.get_text_config(decoder=True)):
        if (found := getattr(config, "use_cache", None)) is not None:
            return bool(found)
    return True


def _require_replaceable(given: Any, replaced: Container[Any]) -> None:
    name = type(given).__name__
    if type(given) is not DynamicCache or given.offloading:
        kind = f"offloaded {name}" if type(given) is DynamicCache else name
        hint = ", and no cache_implementation in generate" if isinstance(given, Cache) else ""
        raise InputError(f"past_key_values={kind} is not allowed; {_ALLOWED}{hint}")
    if given.get_seq_length():
        raise InputError(f"past_key_values={name} of {given.get_seq_length()} tokens is not allowed; {_ALLOWED}")
    if given in replaced:
        raise InputError(
            f"past_key_values={name} is the one of an earlier forward, whose tokens are in a cache of Pith's: "
            "continue with the past_key_values of the model's output, or pass recipe.cache(model) from the start"
        )


def _short(recipe: Recipe) -> str:
    text = str(recipe)
    return text if len(text) <= 80 else f"{text[:77]}..."
