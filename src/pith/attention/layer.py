"""One layer's cache: it stores, attends and evicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from pith.attention import in_flight
from pith.attention.answers import Answers
from pith.attention.attend import attend, attend_causally, causal_mask
from pith.attention.call import Call
from pith.attention.placement import text_positions
from pith.attention.rotary import Rotor
from pith.attention.step import Step
from pith.attention.store import PADDING, Store
from pith.attention.unfused import renumbered, written_out
from pith.core import InputError


class LayerCache(CacheLayerMixin):  # type: ignore[misc]
    """One full-attention layer's cache, in which a recipe's attention-time methods act.

    The model's own code calls `update` with new keys and values, then its attention function; `update` hands the layer
    over (`in_flight`) and `attend` does the work: store, read, attend, evict.

    Args:
        index, depth: the layer's index, and the number of layers.
        cache_id: what the layers of one cache have in common.
        answers: what the recipe answers to the questions of the runtime.
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, index: int, depth: int, cache_id: int, answers: Answers) -> None:
        # the base class's __init__ would put keys and values beside the store
        self.index, self.depth, self.cache_id = index, depth, cache_id
        self.answers, self.evictor, self.reader = answers, answers.evictor, answers.reader
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.store = Store(self.answers.storage, self.answers.device)
        self.seen = 0
        self.comes: Int[Tensor, "batch new"] | None = None  # positions of the next tokens, if some stay away
        self.witness: Callable[[Step], None] | None = None  # is shown the next steps, which then evict nothing
        self.passing = False  # whether the next tokens are taken back, or more comes before the prompt is settled
        self.is_initialized = False
        self._real: Int[Tensor, " batch"] | None = None  # real tokens seen by each row; None until a row had padding
        self._dropped_at = 0  # tokens seen when pairs were last dropped
        if self.evictor is not None:
            self.evictor.reset()
        if self.reader is not None:
            self.reader.forget()

    @property
    def form(self) -> str:
        """How the stored keys are rotated.

        "text" is as the model gave them, "cache" at their index in the cache, "raw" not at all.
        """
        if self.answers.raw:
            return "raw"
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
        if self.reader is not None:
            yield from self.reader.tensors()

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
            if self.reader is not None:
                self.reader.forget()

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
            if self.reader is not None:
                self.reader.select_rows(rows)

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
        rotor = self._rotor(call, positions)
        held = rotor.unrotate(key, rotor.text(positions)) if rotor is not None and self.answers.raw else key
        blocks, outs = self._blocks(new), []
        for part in blocks:
            self.store.append(
                held[:, :, part], value[:, :, part], positions[..., part], decoding=not prefill or len(blocks) > 1
            )
            self.seen, self.is_initialized = self.seen + positions[..., part].shape[-1], True
            if self.evictor is not None and self.evictor.placement is not None:
                self.evictor.placement.place(call, self.store)
            step = self._step(call, query[:, :, part], prefill, rotor)
            outs.append(self._attention(call, step, first and part.start == 0))
        self._evict(call, self._step(call, query, prefill, rotor))
        if not self.passing:
            self.store.settle(query, prefill, real)
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)

    def _blocks(self, new: int) -> list[slice]:
        """The new tokens that are read together."""
        reading = None if self.reader is None else self.reader.reading
        if reading is None or reading.block is None or reading.block >= new:
            return [slice(0, new)]
        begin = -new % reading.block if reading.whole_at_end else 0
        edges = range(-begin, new, reading.block)
        return [slice(max(edge, 0), min(edge + reading.block, new)) for edge in edges]

    def _attention(self, call: Call, step: Step, first: bool) -> Float[Tensor, "batch query_head query value_dim"]:
        """The attention of some new tokens, which are stored already; `first` if nothing else is."""
        new = step.query.shape[2]
        if self.reader is not None and (not step.prefill or self.reader.reading.block is not None):
            out = self.reader.read(call, step)
            if out is not None:
                return out
        if not self.store.plain:
            return written_out(step)
        if self.answers.raw and self._dropped_at and self.evictor is not None and self.evictor.eviction.renumbers:
            query, keys = renumbered(step)
        else:
            query, keys = step.query, step.keys
        if first and new > 1 and not self.store.padded and call.plain:
            return attend_causally(query, keys, step.values, call.scaling, call.dropout)
        mask = causal_mask(new, step.stored, step.real if step.padded else None, query.device)
        return attend(query, keys, step.values, mask, call.scaling, call.softcap, call.sinks, call.dropout)

    def _evict(self, call: Call, step: Step) -> None:
        """Shows the step to the witness, if there is one; else drops what the recipe does not keep."""
        if self.witness is not None:
            self.witness(step)
        elif self.evictor is not None and self.evictor.due(step.prefill):
            seen = self.seen if self._real is None else self._real
            if self.evictor.evict(call, step, seen):
                self.dropped()

    def dropped(self) -> None:
        """Pairs were let go: what counted slots counts anew, and `crop` cannot go back behind here."""
        self._dropped_at = self.seen
        if self.reader is not None:
            self.reader.forget()

    def catch_up(self, other: LayerCache) -> None:
        """Counts as seen what another layer has seen and this one was not given (see `comes`)."""
        self.seen, self._real = other.seen, other._real

    def _rotor(self, call: Call, positions: Int[Tensor, "batch 1 new"]) -> Rotor | None:
        if self.answers.rotary is None:
            return None
        return Rotor(self.answers.rotary, call.module, text_positions(call)[:, -1:] - positions[:, 0, -1:])

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
        if self.comes is not None:
            comes, self.comes = self.comes, None
            return comes.to(torch.int32).unsqueeze(1)
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

    def _step(self, call: Call, query: Tensor, prefill: bool, rotor: Rotor | None) -> Step:
        return Step(
            query=query,
            store=self.store,
            layer=self.index,
            depth=self.depth,
            prefill=prefill,
            scaling=call.scaling,
            softcap=call.softcap,
            sinks=call.sinks,
            rotor=rotor,
            raw=self.answers.raw,
            memory={} if self.reader is None else self.reader.memory,
        )
