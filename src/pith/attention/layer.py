"""One layer's cache: it stores, attends and evicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from pith.attention import in_flight
from pith.attention.answers import Answers
from pith.attention.attend import attend, attend_causally, causal_mask
from pith.attention.call import Call
from pith.attention.numbering import Numbering, valid_tokens
from pith.attention.placement import text_positions
from pith.attention.rotary import Rotor
from pith.attention.step import Step
from pith.attention.store import Store
from pith.attention.unfused import renumbered, written_out
from pith.core import InputError


class LayerCache(CacheLayerMixin):  # type: ignore[misc]
    """One full-attention layer's cache, in which a recipe's attention-time methods act.

    The model's own code calls `update` with new keys and values, then its attention function; `update` hands the layer
    over (`in_flight`) and `attend` does the work: store, read, attend, evict.

    Args:
        index, depth: the layer's index, and the number of layers.
        group: what the layers of one cache have in common.
        answers: what the recipe answers to the questions of the runtime.
    """

    is_sliding = False
    is_croppable = False  # not by `generate`, which does not say which tokens it will take back; see `candidates`

    def __init__(self, index: int, depth: int, group: in_flight.CacheGroup, answers: Answers) -> None:
        # the base class's __init__ would put keys and values beside the store
        self.index, self.depth, self.group = index, depth, group
        self.answers, self.evictor, self.reader = answers, answers.evictor, answers.reader
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.store = Store(self.answers.storage, self.answers.device)
        self.numbering = Numbering()
        self.comes: Int[Tensor, "batch new"] | None = None  # positions of the next tokens, if some stay away
        self.candidates = 0  # newest tokens of the next forward that `crop` may take back, as in assisted decoding
        self.witness: Callable[[Step], None] | None = None  # is shown the next steps, which then evict nothing
        self.passing = False  # whether the next tokens are taken back, or more comes before the prompt is settled
        self.is_initialized = False
        self._dropped_at = 0  # tokens seen when pairs were last dropped
        if self.evictor is not None:
            self.evictor.reset()
        if self.reader is not None:
            self.reader.forget()

    @property
    def seen(self) -> int:
        """The number of tokens seen, kept or not, padding included."""
        return self.numbering.seen

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
        """Do nothing: the first keys are the first storage."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Hands the layer over to the attention function that the model calls next, and the new tokens with it."""
        in_flight.put(self)
        return key_states, value_states

    def get_seq_length(self) -> int:
        """The number of tokens seen, kept or not, so that `generate` keeps text positions by itself."""
        return self.seen

    def get_max_length(self) -> int:
        """Return -1: there is no maximum."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The mask covers every token seen; which of them are stored is the layer's own matter."""
        return self.seen + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Take back the newest tokens, given as a negative number of them.

        Raises:
            InputError: the number is positive, or larger than what was seen since pairs were last evicted.
        """
        count = -tokens_to_remove
        if count < 0:
            raise InputError(f"crop({tokens_to_remove}): give a negative number, of the newest tokens to remove")
        if self.seen - count < self._dropped_at:
            raise InputError(
                f"crop({tokens_to_remove}) would go back behind token {self._dropped_at}, where pairs were evicted for "
                f"good; at most {self.seen - self._dropped_at} can be taken back"
            )
        if count and self.is_initialized:
            self.numbering.uncount(self.store.positions[:, 0, self.store.length - count :])
            self.store.crop(count)
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
            self.numbering.select(rows)
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
        """Store the new tokens' pairs, attend, and evict what the recipe does not keep.

        The newest `candidates` of them see the cache as if they were decoded one at a time, and may be taken back.

        Raises:
            InputError: a prompt ends in padding, or its mask is not two-dimensional.
            ModelError: a method must place keys, and the model does not say at which text positions they are.
        """
        new, candidates = key.shape[2], self.candidates
        valid, self.candidates = valid_tokens(call.mask, new), 0
        self.store.confirm()
        if not candidates:
            return self._read(call, query, key, value, valid)
        outs, start, count = [], 0, new - candidates
        while start < new:
            # candidates are read together as far as nothing is to be packed, or read anew
            run = slice(start, start + (count or (1 if self.reader else self.store.until_due(new - start))))
            part = replace(call, positions=None if call.positions is None else call.positions[:, run])
            mine = None if valid is None else valid[:, run]
            outs.append(self._read(part, query[:, :, run], key[:, :, run], value[:, :, run], mine, not count))
            start, count = run.stop, 0
        return torch.cat(outs, dim=2)

    def _read(
        self, call: Call, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None, candidates: bool = False
    ) -> Float[Tensor, "batch query_head query value_dim"]:
        """The same for tokens that are all a prompt's (or a part of one), one decoded token, or all candidates."""
        new, first = key.shape[2], self.seen == 0
        prefill = not candidates and (first or new > 1)
        valid = self._note_padding(valid, prefill)
        positions = self._number(valid, key)
        rotor = self._rotor(call, positions)
        held = rotor.unrotate(key, rotor.text(positions)) if rotor is not None and self.answers.raw else key
        blocks, outs = self._blocks(new), []
        for part in blocks:
            self.store.append(
                held[:, :, part], value[:, :, part], positions[..., part], decoding=not prefill or len(blocks) > 1
            )
            self.is_initialized = True
            if self.evictor is not None and self.evictor.placement is not None:
                self.evictor.placement.place(call, self.store)
            step = self._step(call, query[:, :, part], prefill, rotor)
            outs.append(self._attention(call, step, first and part.start == 0))
        self._evict(call, self._step(call, query, prefill, rotor))
        if not self.passing:
            self.store.settle(query, prefill, valid, undo=candidates)
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)

    def _blocks(self, new: int) -> list[slice]:
        """The new tokens that are read together."""
        if self.reader is None or self.reader.reading.block is None or self.reader.reading.block >= new:
            return [slice(0, new)]
        reading, block = self.reader.reading, self.reader.reading.block
        edges = range(-(-new % block) if reading.whole_at_end else 0, new, block)
        return [slice(max(edge, 0), min(edge + block, new)) for edge in edges]

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
        if first and call.attended is not None:
            return call.attended
        if first and new > 1 and not self.store.padded and call.plain:
            return attend_causally(query, keys, step.values, call.scaling, call.dropout)
        mask = causal_mask(new, step.stored, step.real if step.padded else None, query.device)
        return attend(query, keys, step.values, mask, call.scaling, call.softcap, call.sinks, call.dropout)

    def _evict(self, call: Call, step: Step) -> None:
        """Shows the step to the witness, if there is one; else drops what the recipe does not keep."""
        if self.witness is not None:
            self.witness(step)
        elif self.evictor is not None and self.evictor.due(step.prefill):
            seen = self.seen if self.numbering.rows is None else self.numbering.rows
            if self.evictor.evict(call, step, seen):
                self.dropped()

    def dropped(self) -> None:
        """Pairs were let go: what counted slots counts anew, and `crop` cannot go back behind here."""
        self._dropped_at = self.seen
        if self.reader is not None:
            self.reader.forget()

    def catch_up(self, other: LayerCache) -> None:
        """Counts as seen what another layer has seen and this one was not given (see `comes`)."""
        self.numbering.seen, self.numbering.rows = other.seen, other.numbering.rows

    def _rotor(self, call: Call, positions: Int[Tensor, "batch 1 new"]) -> Rotor | None:
        if self.answers.rotary is None:
            return None
        return Rotor(self.answers.rotary, text_positions(call)[:, -1:] - positions[:, 0, -1:])

    def _note_padding(self, valid: Bool[Tensor, "batch new"] | None, prefill: bool) -> Tensor | None:
        """Notes whether a row has padding; gives what is valid, or None where no row ever had any."""
        if valid is None or (not self.store.padded and bool(valid.all())):
            return None
        self.store.padded = True
        if self.evictor is not None and prefill:
            self.numbering.check_left_padding(valid)
        return valid

    def _number(self, valid: Bool[Tensor, "batch new"] | None, key: Tensor) -> Int[Tensor, "batch 1 new"]:
        """The new tokens' positions among the valid tokens of their rows."""
        if self.comes is not None:
            comes, self.comes = self.comes, None
            self.numbering.seen += key.shape[2]
            return comes.to(torch.int32).unsqueeze(1)
        return self.numbering.count(valid, key.shape[0], key.shape[2], key.device)

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
