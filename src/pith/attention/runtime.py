"""What applies a recipe's attention-time methods to a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pith.attention import interception
from pith.attention.answers import answers_of
from pith.attention.cache import PithCache
from pith.attention.companion import accompany
from pith.attention.eviction import Retention
from pith.attention.in_flight import CacheGroup
from pith.attention.interface import NAME
from pith.attention.layer import LayerCache
from pith.attention.self_check import check
from pith.attention.support import plan_layers, set_attention
from pith.attention.uncompiled import is_refused_graph_break
from pith.attention.wrappers import unwrap
from pith.core import ModelError, Recipe, warn


class AttentionRuntime:
    """Makes a recipe's attention-time methods act on a model (see `pith.core.runtime`)."""

    def cache(self, model: Any, recipe: Recipe) -> PithCache:
        """A cache for one batch of sequences; sets the model's attention to Pith's.

        Args:
            model: a Transformers model, or a module that wraps one.
            recipe: the methods.

        Raises:
            ModelError: the model or one of its layers cannot be served; the message says why.
        """
        model = unwrap(model)
        cache = make_cache(model, resolve(model, recipe))
        warn_of_layers(model, recipe, cache)
        set_attention(model, NAME)
        return cache

    @contextmanager
    def applied(self, model: Any, recipe: Recipe) -> Iterator[Any]:
        """Every forward of the model that would begin an empty cache of its own begins a `PithCache` instead.

        On exit the model's attention and forward are what they were, also after an exception. Leaving without an
        exception warns if no token was read into a cache of Pith's.

        Args:
            model: a Transformers model, or a module that wraps one.
            recipe: the methods.

        Raises:
            ModelError: the model or one of its layers cannot be served; the message says why.
        """
        inner = unwrap(model)
        made = partial(make_cache, inner, resolve(inner, recipe))
        use = interception.Use(recipe, made, partial(make_cache, inner, Recipe()))
        first = interception.enter(inner, use)
        managed = bool(first.served())
        warn_of_layers(inner, recipe, first)
        del first  # a companion's hooks live as long as its cache
        try:
            yield model
        except Exception as error:
            if is_refused_graph_break(error):
                raise ModelError(
                    f"{type(inner).__name__} was compiled with fullgraph=True, and Pith's attention runs uncompiled: "
                    "compile it with fullgraph=False, or apply the recipe to the uncompiled model"
                ) from error
            raise
        finally:
            interception.leave(inner, use)
        if len(recipe) and managed and not use.acted and not use.raised:
            ran = f"{use.forwards} of its forwards ran, none" if use.forwards else "none of its forwards ran"
            warn(
                f"{recipe} did not act on {type(inner).__name__}: {ran} with a cache of Pith's; call this model's "
                "generate or forward inside the block"
            )


def resolve(model: Any, recipe: Recipe) -> Recipe:
    """Return the recipe with what its methods need of the model."""
    return Recipe(method.on(model) if isinstance(method, Retention) else method for method in recipe.methods)


def make_cache(model: Any, recipe: Recipe) -> PithCache:
    """Return an empty cache; see `AttentionRuntime.cache`."""
    plain, left_alone = plan_layers(model)
    rotations = check(model)
    cache = PithCache(plain.layers, left_alone)
    served = [index for index in range(len(plain.layers)) if index not in left_alone]
    group = CacheGroup(served, len(plain.layers))
    for seat, index in enumerate(served):
        answers = answers_of(model, index, recipe, (seat, len(served)), rotations.of)
        cache.layers[index] = LayerCache(index, len(plain.layers), group, answers)
    retention = recipe.answer(Retention.question)
    companion = retention.companion() if isinstance(retention, Retention) and not retention.keeps_all else None
    if companion is not None:
        cache.companion = companion
        accompany(companion, cache, model)
    return cache


def warn_of_layers(model: Any, recipe: Recipe, cache: PithCache) -> None:
    """Warn of the layers in which a recipe does not act."""
    if cache.left_alone and len(recipe):
        reasons = sorted(set(cache.left_alone.values()))
        layers = ", ".join(map(str, cache.left_alone))
        warn(
            f"{recipe} leaves {len(cache.left_alone)} of {len(cache.layers)} layers of {type(model).__name__} alone "
            f"({' and '.join(reasons)}): {layers}"
        )
