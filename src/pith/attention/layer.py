"""One layer's cache: it stores, attends and evicts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from pith.attention import in_flight
from pith.attention.attend import attend, attend_causally, causal_mask
from pith.attention.call import Call
from pith.attention.evictor import Evictor
from pith.attention.step import Step
from pith.attention.store import PADDING, Store
from pith.core import InputError


class LayerCache(CacheLayerMixin):  # type: ignore[misc]
    """One full-attention layer's cache, in which a recipe's attention-time methods act.

    The model's own code calls `update` with new keys and values, then its attention function; `update` hands the layer
    over (`in_flight`) and `attend` does the work: store, read, attend, evict.

    Args:
        index, depth: the layer's index, and the number of layers.
        cache_id: what the layers of one cache have in common.
        evictor: carries out the recipe's answer to which pairs are kept; None keeps all.
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, index: int, depth: int, cache_id: int, evictor: Evictor | None) -> None:
        # the base class's __init__ would put keys and values beside the store
        self.index, self.depth, self.cache_id, self.evictor = index, depth, cache_id, evictor
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.store = Store()
        self.seen = 0
        self.is_initialized = False
        self._real: Int[Tensor, " batch"] | None = None  # real tokens seen by each row; None until a row had padding
        self._dropped_at = 0  # tokens seen when pairs were last dropped
        if self.evictor is not None:
            self.evictor.reset()

    @property
    def form(self) -> str:
        """How the stored keys are rotated: "text", as the model gave them, or "cache", at their index in the cache."""
        return "text" if self.evictor is None or self.evictor.placement is None else "cache"

    @property
    def keys(self) -> Tensor | None:
        """The stored keys, [batch, kv_head, stored, head_dim], in their `form`."""
        return self.store.keys if self.is_initialized else None

    @property
    def values(self) -> Tensor | None:
        """The stored values, [batch, kv_head, stored, value_dim]."""
        return self.store.values if self.is_initialized else None

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that the layer holds."""
        yield from self.store.tensors()
        if self.evictor is not None:
            yield from self.evictor.tensors()

    # What Transformers calls -----------------------------------------------------------------------------------------

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is made in advance: the first keys are the first storage."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Hands the layer over to the attention function that the model calls next, and the new tokens with it."""
        in_flight.put(self)
        return key_states, value_states

    def get_seq_length(self) -> int:
        """The number of tokens seen, kept or not, so that `generate` keeps text positions by itself."""
        return self.seen

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The mask covers every token seen; which of them are stored is the layer's own matter."""
        return self.seen + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Takes back the newest tokens (a negative number of them).

        Raises:
            InputError: an eviction came after them, so what it dropped is gone.
        """
        count = abs(tokens_to_remove)
        if self.seen - count < self._dropped_at:
            raise InputError(
                f"crop({tokens_to_remove}) would go back behind token {self._dropped_at}, where pairs were evicted for "
                f"good; at most {self.seen - self._dropped_at} can be taken back"
            )
        if count and self.is_initialized:
            newest = self.store.positions[:, 0, self.store.length - count :]
            self._real = None if self._real is None else self._real - (newest >= 0).sum(dim=-1)
            self.store.crop(count)
            self.seen -= count

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search: each row goes on from another row."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row comes `repeats` times."""
        if self.is_initialized:
            rows = torch.arange(self.store.positions.shape[0], device=self.store.positions.device)
            self.batch_select_indices(rows.repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows of the batch."""
        if self.is_initialized:
            rows = indices.to(self.store.positions.device)
            self.store.select(rows)
            self._real = None if self._real is None else self._real[rows]
            if self.evictor is not None:
                self.evictor.select(rows)

    # What Pith's attention function calls ----------------------------------------------------------------------------

    def attend(
        self,
        call: Call,
        query: Float[Tensor, "batch query_head query head_dim"],
        key: Float[Tensor, "batch kv_head query head_dim"],
        value: Float[Tensor, "batch kv_head query value_dim"],
    ) -> Float[Tensor, "batch query_head query value_dim"]:
        """Stores the new tokens' pairs, attends, and evicts what the recipe does not keep.

        Raises:
            InputError: a prompt ends in padding, or its mask is not two-dimensional.
            ModelError: a method must place keys, and the model does not say at which text positions they are.
        """
        new, first = key.shape[2], self.seen == 0
        prefill = first or new > 1
        real = self._which_are_real(call.mask, new)
        positions = self._number(real, key)
        self.store.append(key, value, positions, decoding=not prefill)
        self.seen, self.is_initialized = self.seen + new, True
        if self.evictor is not None and self.evictor.placement is not None:
            self.evictor.placement.place(call, self.store)
        keys, values = self.store.keys, self.store.values
        if first and new > 1 and not self.store.padded and call.plain:
            out = attend_causally(query, keys, values, call.scaling, call.dropout)
        else:
            held = self.store.positions >= 0 if self.store.padded else None
            mask = causal_mask(new, self.store.length, held, query.device)
            out = attend(query, keys, values, mask, call.scaling, call.softcap, call.sinks, call.dropout)
        if self.evictor is not None and self.evictor.due(prefill):
            seen = self.seen if self._real is None else self._real
            if self.evictor.evict(call, self._step(call, query, prefill), self.store, seen):
                self._dropped_at = self.seen
        if prefill:
            self.store.settle()
        return out

    def _which_are_real(self, mask: Tensor | None, new: int) -> Bool[Tensor, "batch new"] | None:
        """Which new tokens are no padding; None where no row ever had any."""
        if mask is not None and mask.ndim != 2:
            raise InputError(f"an attention mask of {mask.ndim} dimensions was given; allowed is [batch, tokens]")
        if mask is None or (new == 1 and self.seen and not self.store.padded):
            return None
        real = mask[:, -new:].bool()
        if new > 1 and not bool(real.all()):
            self.store.padded = True
            if self.evictor is not None and not bool(real[:, -1].all()):
                row = int((~real[:, -1]).nonzero()[0])
                raise InputError(f"row {row} ends in padding; pad on the left (tokenizer.padding_side = 'left')")
        return real if self.store.padded else None

    def _number(self, real: Bool[Tensor, "batch new"] | None, key: Tensor) -> Int[Tensor, "batch 1 new"]:
        """The new tokens' positions among the real tokens of their rows."""
        batch, new = key.shape[0], key.shape[2]
        if real is None and self._real is None:
            if new == 1:
                return torch.full((batch, 1, 1), self.seen, device=key.device, dtype=torch.int32)
            span = torch.arange(self.seen, self.seen + new, device=key.device, dtype=torch.int32)
            return span.repeat(batch, 1, 1)
        if self._real is None:
            self._real = torch.full((batch,), self.seen, device=key.device)
        if real is None:
            real = torch.ones((batch, new), dtype=torch.bool, device=key.device)
        index = self._real[:, None] + real.cumsum(dim=-1) - 1
        self._real = self._real + real.sum(dim=-1)
        return torch.where(real, index, PADDING).to(torch.int32).unsqueeze(1)

    def _step(self, call: Call, query: Tensor, prefill: bool) -> Step:
        return Step(
            query=query,
            keys=self.store.keys,
            values=self.store.values,
            positions=self.store.positions,
            padded=self.store.padded,
            layer=self.index,
            depth=self.depth,
            prefill=prefill,
            scaling=call.scaling,
            softcap=call.softcap,
            sinks=call.sinks,
        )
