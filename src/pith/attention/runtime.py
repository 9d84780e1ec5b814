"""What applies a recipe's attention-time methods to a model."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.cache_utils import DynamicCache

from pith.attention.answers import answers_of
from pith.attention.cache import PithCache
from pith.attention.candidates import count_candidates, expect_candidates
from pith.attention.companion import accompany
from pith.attention.eviction import Retention
from pith.attention.interface import NAME
from pith.attention.layer import LayerCache
from pith.attention.self_check import check
from pith.attention.support import plan_layers, set_attention
from pith.core import InputError, PithWarning, Recipe

_cache_ids = itertools.count()


class AttentionRuntime:
    """Makes a recipe's attention-time methods act on a model (see `pith.core.runtime`)."""

    def cache(self, model: Any, recipe: Recipe) -> PithCache:
        """A cache for one batch of sequences; sets the model's attention to Pith's.

        Raises:
            ModelError: the model or one of its layers cannot be served; the message says why.
        """
        plain, left_alone = plan_layers(model)
        rotations = check(model)
        reasons = sorted(set(left_alone.values()))
        if left_alone and len(recipe):
            layers = ", ".join(map(str, left_alone))
            warnings.warn(
                f"{recipe} leaves {len(left_alone)} of {len(plain.layers)} layers of {type(model).__name__} alone "
                f"({' and '.join(reasons)}): {layers}",
                PithWarning,
                stacklevel=2,
            )
        recipe = Recipe(method.on(model) if isinstance(method, Retention) else method for method in recipe.methods)
        cache = PithCache(plain.layers, left_alone)
        served = [index for index in range(len(plain.layers)) if index not in left_alone]
        cache_id = next(_cache_ids)
        for seat, index in enumerate(served):
            answers = answers_of(model, index, recipe, (seat, len(served)), rotations.of)
            cache.layers[index] = LayerCache(index, len(plain.layers), cache_id, answers)
        set_attention(model, NAME)
        retention = recipe.answer(Retention.question)
        companion = retention.companion() if isinstance(retention, Retention) and not retention.keeps_all else None
        if companion is not None:
            cache.companion = companion
            accompany(companion, cache, model)
        return cache

    @contextmanager
    def applied(self, model: Any, recipe: Recipe) -> Iterator[Any]:
        """Every forward of the model that would begin an empty cache of its own begins a `PithCache` instead.

        On exit the model's attention and hooks are what they were, also after an exception.

        Raises:
            ModelError: the model or one of its layers cannot be served; the message says why.
        """
        before = getattr(model.config, "_attn_implementation", None)
        self.cache(model, recipe)  # says now, not at the first forward, what cannot be
        # before the hooks of recipes applied further out: the inner one counts
        handle = model.register_forward_pre_hook(self._begin(recipe), prepend=True, with_kwargs=True)
        try:
            yield model
        finally:
            handle.remove()
            set_attention(model, before)

    def _begin(self, recipe: Recipe) -> Any:
        def begin(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            given = kwargs.get("past_key_values")
            uses_cache = kwargs.get("use_cache")
            uses_cache = model.config.use_cache if uses_cache is None else uses_cache
            if isinstance(given, PithCache):
                expect_candidates(given, count_candidates(given, kwargs))
                return args, kwargs
            if given is None and not uses_cache:
                return args, kwargs
            if given is not None and (not isinstance(given, DynamicCache) or given.get_seq_length()):
                raise InputError(
                    f"past_key_values is a {type(given).__name__} of {given.get_seq_length()} tokens; under "
                    "pith.applied(...) allowed is none, an empty DynamicCache, or recipe.cache(model)"
                )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PithWarning)  # said once, when the recipe was applied
                cache = self.cache(model, recipe)
            cache.take_over(given)
            expect_candidates(cache, count_candidates(cache, kwargs))
            return args, {**kwargs, "past_key_values": cache}

        return begin
