"""One tensor of a layer's cache, a slot for each stored token: the plain form that `Store` keeps keys and values in."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention.storage import Context

HEADROOM = 64
"""Tokens that a buffer grows by at least, while decoding."""


class Column:
    """A tensor [batch, head, stored, ...] that tokens are appended to, and from which they are let go.

    The live slots are `[start, start + length)` of one buffer. After a prompt and after an eviction the buffer is
    exactly as long as what it holds; while decoding it grows by a sixteenth, at least `HEADROOM` tokens, so that a
    token costs no copy of the rest.

    Columns of other forms (`Ragged`, `Coded`) answer the same calls; a slot has the same number in every column of a
    store, whatever its form.

    Args:
        empty: what is written into a slot that `keep` leaves without a token; None leaves there what may be.
    """

    plain = True
    """Whether `dense` is a view, so that a fused kernel can read what is held."""

    def __init__(self, empty: int | None = None) -> None:
        self._buffer: Tensor | None = None
        self._start = 0
        self._empty = empty
        self.length = 0

    @classmethod
    def of(cls, tensor: Tensor, empty: int | None = None) -> Column:
        """A column that holds this tensor."""
        column = cls(empty)
        column.append(tensor, decoding=False)
        return column

    @property
    def heads(self) -> int:
        """The number of heads."""
        assert self._buffer is not None, "the store is empty"
        return self._buffer.shape[1]

    @property
    def dim(self) -> int:
        """The size of a slot."""
        assert self._buffer is not None, "the store is empty"
        return self._buffer.shape[3]

    def dense(self) -> Tensor:
        """What is stored, [batch, head, stored, ...]; a view in this form."""
        assert self._buffer is not None, "the store is empty"
        return self._buffer.narrow(2, self._start, self.length)

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that is held, headroom included."""
        if self._buffer is not None:
            yield self._buffer

    def append(self, new: Tensor, decoding: bool) -> None:
        """Adds slots behind the others; what comes first is taken as it is, without a copy (see `settle`)."""
        count = new.shape[2]
        if self._buffer is None:
            self._buffer, self.length = new, count
            return
        if self._buffer.requires_grad or new.requires_grad:
            # autograd needs what earlier forwards have read as it was: nothing is written in place
            self._buffer = torch.cat([self.dense(), new], dim=2)
            self._start, self.length = 0, self.length + count
            return
        end = self._start + self.length
        if end + count > self._buffer.shape[2]:
            room = max(HEADROOM, self.length // 16) if decoding else 0
            self._reallocate(self.length + max(count, room))
            end = self.length
        self._buffer[:, :, end : end + count] = new
        self.length += count

    def pack(self, context: Context, prefill: bool, undo: bool = False) -> None:
        """Nothing: this form holds tokens as they are."""

    def confirm(self) -> None:
        """Nothing: this form encodes nothing."""

    def until_due(self, most: int) -> int:
        """Return `most`: this form encodes nothing."""
        return most

    def settle(self) -> None:
        """Makes the buffer exactly as long as what it holds, and the column its only owner.

        The model's tensors may be views of larger ones (all of a fused projection, say), which would live on.
        """
        if self._buffer is None:
            return
        if self._buffer.untyped_storage().nbytes() != self.dense().nbytes or not self._buffer.is_contiguous():
            self._reallocate(self.length)

    def keep(self, index: Int[Tensor, "batch heads kept"]) -> None:
        """Keeps the slots at `index` and lets all others go; a negative index leaves a slot without a token."""
        live = self.dense()
        if index.shape[1] > live.shape[1]:
            live = live.expand(-1, index.shape[1], *live.shape[2:])
        self._buffer = gather(live, index)
        if self._empty is not None:
            gone = (index < 0).to(self._buffer.device)
            self._buffer.masked_fill_(gone.reshape(*gone.shape, *[1] * (live.ndim - 3)), self._empty)
        self._start, self.length = 0, index.shape[-1]

    def drop(self, index: Int[Tensor, "batch heads"]) -> None:
        """Drops one slot of each head: what stands before it moves up by one, and the first slot is let go.

        A token that is dropped near the front, as by a rolling window, costs next to nothing.
        """
        if index.shape[1] > self.dense().shape[1]:
            self._buffer = self.dense().expand(-1, index.shape[1], *self.dense().shape[2:]).contiguous()
            self._start = 0
        live, last = self.dense(), int(index.max())
        if live.requires_grad:
            kept = torch.arange(self.length - 1, device=index.device)
            self._buffer = gather(live, torch.where(kept < index.unsqueeze(-1), kept, kept + 1))
            self._start, self.length = 0, self.length - 1
            return
        if index.numel() == 1:
            front = live[:, :, :last].clone()
        else:
            # slot j moves up by one as long as it stands before the dropped one; the others stay
            slots = torch.arange(last, device=index.device)
            front = gather(live, torch.where(slots < index.unsqueeze(-1), slots, slots + 1))
        live[:, :, 1 : last + 1] = front
        self._start += 1
        self.length -= 1

    def crop(self, count: int) -> None:
        """Takes the newest `count` slots back."""
        self.length -= count

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Makes these rows of the batch the new batch, in this order; a row may come more than once."""
        if self._buffer is not None:
            self._buffer = self.dense().index_select(0, rows.to(self._buffer.device))
            self._start = 0

    def gather(self, index: Int[Tensor, "batch heads read"]) -> Tensor:
        """A copy of the slots at `index`, [batch, head, read, ...]; negative ones give what may be."""
        return gather(self.dense(), index)

    def dot(self, query: Float[Tensor, "batch kv_head query head_dim"]) -> Float[Tensor, "batch kv_head query stored"]:
        """The products of queries with each slot, for a column of keys."""
        return query @ self.dense().transpose(-1, -2)

    def mix(
        self, weights: Float[Tensor, "batch kv_head query stored"]
    ) -> Float[Tensor, "batch kv_head query value_dim"]:
        """The sums of the slots by weights, for a column of values; empty slots have the weight 0."""
        return weights.to(self.dense().dtype) @ self.dense()

    def forget(self, count: int) -> None:
        """Lets the oldest `count` slots go; their memory is freed by the next `settle` or growth."""
        self._start += count
        self.length -= count

    def _reallocate(self, capacity: int) -> None:
        live = self.dense()
        self._buffer = live.new_empty((*live.shape[:2], capacity, *live.shape[3:]))
        self._buffer[:, :, : self.length] = live
        self._start = 0


def gather(slots: Tensor, index: Int[Tensor, "batch heads kept"]) -> Tensor:
    """[batch, head, slot, ...] at `index`, one index for all heads or one a head; negative indices give the first."""
    index = index.clamp(min=0).to(slots.device)
    if index.shape[0] == 1 and index.shape[1] == 1:
        return slots.index_select(2, index[0, 0])
    wide = index.expand(-1, slots.shape[1], -1).reshape(*index.shape[:1], slots.shape[1], index.shape[2])
    if slots.ndim == 3:
        return slots.gather(2, wide)
    return slots.gather(2, wide.unsqueeze(-1).expand(-1, -1, -1, slots.shape[-1]))
