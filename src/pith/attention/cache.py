"""The cache of a whole model, and what applies a recipe's attention-time methods to it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, LinearAttentionCacheLayerMixin

from pith.attention.answers import Answers
from pith.attention.companion import Companion, accompany
from pith.attention.eviction import Retention
from pith.attention.evictor import Evictor
from pith.attention.interface import NAME, register
from pith.attention.layer import LayerCache
from pith.attention.placement import Placement
from pith.attention.reader import Reader
from pith.attention.reading import Reading
from pith.attention.rotary import Rotary
from pith.attention.storage import Storage
from pith.core import InputError, ModelError, PithWarning, Recipe

_cache_ids = itertools.count()


class PithCache(Cache):  # type: ignore[misc]
    """A Transformers cache whose full-attention layers are Pith's; made by `recipe.cache(model)`.

    Layers that hold little already, by a sliding window or by linear attention, are left as Transformers makes them.

    Attributes:
        layers: one cache layer each.
        left_alone: for each layer that is left alone, its index and why.
    """

    def __init__(self, layers: Sequence[Any], left_alone: dict[int, str]) -> None:
        super().__init__(layers=list(layers))
        self.left_alone = left_alone
        self.companion: Companion | None = None

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that Pith's layers hold."""
        for layer in self.layers:
            if isinstance(layer, LayerCache):
                yield from layer.tensors()
        if self.companion is not None:
            yield from self.companion.tensors()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search: each row goes on from another row."""
        super().reorder_cache(beam_idx)
        if self.companion is not None:
            self.companion.select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows of the batch."""
        super().batch_select_indices(indices)
        if self.companion is not None:
            self.companion.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row comes `repeats` times."""
        held = next((layer for layer in self.served() if layer.is_initialized), None)
        super().batch_repeat_interleave(repeats)
        if self.companion is not None and held is not None:
            rows = torch.arange(len(held.store.positions) // repeats, device=held.store.positions.device)
            self.companion.select(rows.repeat_interleave(repeats))

    def served(self) -> list[LayerCache]:
        """The layers that are Pith's."""
        return [layer for layer in self.layers if isinstance(layer, LayerCache)]


class AttentionRuntime:
    """Makes a recipe's attention-time methods act on a model (see `pith.core.runtime`)."""

    def cache(self, model: Any, recipe: Recipe) -> PithCache:
        """A cache for one batch of sequences; sets the model's attention to Pith's.

        Raises:
            ModelError: the model or one of its layers cannot be served; the message says why.
        """
        plain, left_alone = _plan(model)
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
        rotaries: dict[str | None, Rotary] = {}
        for seat, index in enumerate(served):
            answers = _answers(model, index, recipe, (seat, len(served)), rotaries)
            cache.layers[index] = LayerCache(index, len(plain.layers), cache_id, answers)
        _set_attention(model, NAME)
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
            _set_attention(model, before)

    def _begin(self, recipe: Recipe) -> Any:
        def begin(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            given = kwargs.get("past_key_values")
            uses_cache = kwargs.get("use_cache")
            uses_cache = model.config.use_cache if uses_cache is None else uses_cache
            if isinstance(given, PithCache) or (given is None and not uses_cache):
                return args, kwargs
            if given is not None and (not isinstance(given, DynamicCache) or given.get_seq_length()):
                raise InputError(
                    f"past_key_values is a {type(given).__name__} of {given.get_seq_length()} tokens; under "
                    "pith.applied(...) allowed is none, an empty DynamicCache, or recipe.cache(model)"
                )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PithWarning)  # said once, when the recipe was applied
                return args, {**kwargs, "past_key_values": self.cache(model, recipe)}

        return begin


def _plan(model: Any) -> tuple[DynamicCache, dict[int, str]]:
    """The cache that Transformers would make, and why which of its layers are left alone."""
    name, config = type(model).__name__, getattr(model, "config", None)
    if config is None or not hasattr(model, "set_attn_implementation"):
        raise ModelError(f"{name} is no Transformers model: it has no config or no set_attn_implementation")
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


def _answers(
    model: Any, index: int, recipe: Recipe, seat: tuple[int, int], rotaries: dict[str | None, Rotary]
) -> Answers:
    """The recipe's methods as they act in one layer."""
    retention, storage, reading = (recipe.answer(c.question) for c in (Retention, Storage, Reading))
    evictor = reader = rotary = None
    raw = turns = False
    if isinstance(retention, Retention):
        raw, turns = retention.raw, retention.renumbers or retention.rotates
    if isinstance(reading, Reading):
        raw, reader = raw or reading.raw, Reader(reading)
    if raw or turns:
        rotary = _rotary(model, index, rotaries)
    if isinstance(retention, Retention):
        placed = rotary is not None and retention.renumbers and not raw
        evictor = Evictor(retention, seat, Placement(rotary) if rotary is not None and placed else None)
    return Answers(
        evictor=evictor,
        storage=storage if isinstance(storage, Storage) else None,
        reader=reader,
        rotary=rotary,
        raw=raw,
        device=_away(model) if isinstance(reading, Reading) and reading.offload == "cpu" else None,
    )


def _away(model: Any) -> torch.device | None:
    """Main memory, where the model is elsewhere."""
    return None if model.device.type == "cpu" else torch.device("cpu")


def _rotary(model: Any, index: int, made: dict[str | None, Rotary]) -> Rotary:
    """The rotary embedding of a layer, one for all layers of a type."""
    config = model.config.get_text_config(decoder=True)
    rotates: list[int] | None = getattr(config, "no_rope_layers", None)  # which is 1 where a layer does rotate
    if rotates and not rotates[index]:
        raise ModelError(
            f"layer {index} of {type(model).__name__} has no rotary positions, so its keys cannot be placed at others"
        )
    types: list[str] | None = getattr(config, "layer_types", None)
    kind = types[index] if types else None
    if kind not in made:
        made[kind] = Rotary(model, kind)
    return made[kind]


def _set_attention(model: Any, implementation: str | None) -> None:
    if implementation == NAME:
        register()
    if model.config._attn_implementation == implementation:
        return
    model.set_attn_implementation(implementation)
    if model.config._attn_implementation != implementation:
        raise ModelError(
            f"{type(model).__name__} does not route its attention through Transformers' AttentionInterface"
        )
