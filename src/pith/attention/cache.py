"""The cache of a whole model."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from pith.attention.companion import Companion, accompany, method_of
from pith.attention.layer import LayerCache
from pith.attention.rotary import Rotary
from pith.core import InputError, Method, ModelError


class PithCache(Cache):  # type: ignore[misc]
    """A Transformers cache whose full-attention layers are Pith's; made by `recipe.cache(model)`.

    Layers that hold little already, by a sliding window or by linear attention, are left as Transformers makes them.

    Attributes:
        layers: one cache layer each.
        left_alone: for each layer that is left alone, its index and why.
        interrupted: whether a forward with it ended in an exception.
        by_generate: whether `generate` made the cache that this one replaces, and so announces candidates.
    """

    def __init__(self, layers: Sequence[Any], left_alone: dict[int, str]) -> None:
        super().__init__(layers=list(layers))
        self.left_alone = left_alone
        self.companion: Companion | None = None
        self.by_generate = False
        self.interrupted = False
        self.unwatched = False  # whether forwards run that the companion does not follow

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Hand the layer over to the attention function that the model calls next.

        Raises:
            ModelError: the cache has a companion, and it does not follow this forward.
        """
        if self.companion is not None and not self.companion.follows and not self.unwatched:
            raise ModelError(
                "a method of this cache's recipe does not follow this forward: the cache is of another model, or the "
                "model was compiled; use pith.applied(...), or recipe.cache(model) with the uncompiled model"
            )
        states: tuple[Tensor, Tensor] = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        return states

    def __copy__(self) -> PithCache:
        """Refuse: both caches would write to the same layers.

        Raises:
            InputError: always.
        """
        raise InputError("copy.copy of a cache would share its layers; use copy.deepcopy(cache)")

    def __deepcopy__(self, memo: dict[int, Any]) -> PithCache:
        """Return a copy that continues on its own: with its own tensors, and followed by its own companion.

        What belongs to the model or to the recipe is shared.

        Raises:
            InputError: tensors of the cache have gradients, which PyTorch does not copy.
        """
        if any(tensor.requires_grad for tensor in self.tensors()):
            raise InputError("a cache read with gradients cannot be copied; read the text under torch.no_grad()")
        for shared in self._shared():
            memo[id(shared)] = shared
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        if copied.companion is not None:
            accompany(copied.companion, copied, copied.companion.model)
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to pickle a cache whose companion follows the forwards of a model in this process.

        Raises:
            InputError: it has one.
        """
        if self.companion is not None:
            name = method_of(self.companion)
            raise InputError(f"a cache of {name} cannot be pickled: {name} follows the forwards of the model in memory")
        return super().__reduce_ex__(protocol)

    def _shared(self) -> Iterator[Any]:
        """What a copy has in common with this cache: methods, rotations and parts of the model."""
        held: list[Any] = [] if self.companion is None else list(vars(self.companion).values())
        for layer in self.served():
            held += [layer.answers.rotary, layer.answers.storage]
            held += [] if layer.evictor is None else [layer.evictor.eviction]
            held += [] if layer.reader is None else [layer.reader.reading]
        yield from (one for one in held if isinstance(one, nn.Module | Method | Rotary))

    def require_whole(self) -> None:
        """Raise if a forward was interrupted, so that only some of the layers hold its tokens.

        Raises:
            InputError: it was.
        """
        seen = {layer.seen for layer in self.served()}
        if self.interrupted and len(seen) > 1:
            raise InputError(
                f"a forward with this cache was interrupted: its layers hold {min(seen)} to {max(seen)} tokens; read "
                "the text again in a new cache"
            )

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

    def take_over(self, empty: Cache | None) -> None:
        """Take the place of an empty cache that `generate` made, and record the past where that one was to do so."""
        self.by_generate = empty is not None
        for index in self.left_alone:
            if empty is not None and empty.is_recording_past(index):
                self.layers[index].activate_past_recording()

    def activate_past_recording(self) -> None:
        """Refuse assisted decoding with a cache that the user made: what is a candidate is not known here.

        Raises:
            InputError: always.
        """
        raise InputError(
            "assisted decoding does not take recipe.cache(model) as past_key_values; leave it out and generate inside "
            "`with pith.applied(model, recipe)`"
        )

    def served(self) -> list[LayerCache]:
        """The layers that are Pith's."""
        return [layer for layer in self.layers if isinstance(layer, LayerCache)]
