"""The tensors that one layer's cache holds, and the only place that copies them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

PADDING = -1
"""The position of a slot that holds no token: padding of the prompt, or a row that keeps fewer pairs than another."""


class Store:
    """Keys, values and original positions of one layer, in position order.

    The live slots are `[start, start + length)` of three buffers. After a prompt and after an eviction the buffers are
    exactly as long as what they hold; while decoding they grow by a sixteenth, at least `HEADROOM` tokens, so that a
    token costs no copy of the rest.

    Attributes:
        keys: [batch, kv_head, stored, head_dim], values: [batch, kv_head, stored, value_dim].
        positions: [batch, 1 or kv_head, stored], int32; a token's index among the real tokens of its row. It has one
            head while all heads hold the same tokens.
        padded: whether a slot may be padding.
    """

    HEADROOM = 64

    def __init__(self) -> None:
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._positions: Tensor | None = None
        self.start = 0
        self.length = 0
        self.padded = False

    @property
    def keys(self) -> Float[Tensor, "batch kv_head stored head_dim"]:
        """The stored keys, a view."""
        return self._live(self._keys)

    @property
    def values(self) -> Float[Tensor, "batch kv_head stored value_dim"]:
        """The stored values, a view."""
        return self._live(self._values)

    @property
    def positions(self) -> Int[Tensor, "batch heads stored"]:
        """The stored pairs' positions, a view; `PADDING` marks a slot without a token."""
        return self._live(self._positions)

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that is held, headroom included."""
        yield from (t for t in (self._keys, self._values, self._positions) if t is not None)

    def append(
        self,
        keys: Float[Tensor, "batch kv_head new head_dim"],
        values: Float[Tensor, "batch kv_head new value_dim"],
        positions: Int[Tensor, "batch 1 new"],
        decoding: bool,
    ) -> None:
        """Adds pairs behind the others; what comes first is taken as it is, without a copy (see `settle`)."""
        new = keys.shape[-2]
        if self._keys is None or self._values is None or self._positions is None:
            self._keys, self._values, self._positions, self.length = keys, values, positions, new
            return
        end = self.start + self.length
        if end + new > self._keys.shape[-2]:
            room = max(self.HEADROOM, self.length // 16) if decoding else 0
            self._reallocate(self.length + max(new, room))
            end = self.length
        self._keys[..., end : end + new, :] = keys
        self._values[..., end : end + new, :] = values
        self._positions[..., end : end + new] = positions
        self.length += new

    def settle(self) -> None:
        """Makes the buffers exactly as long as what they hold, and the store their only owner.

        The model's tensors may be views of larger ones (all of a fused projection, say), which would live on.
        """
        held = (self._keys, self._values, self._positions)
        if any(t is not None and t.untyped_storage().nbytes() != self._live(t).nbytes for t in held):
            self._reallocate(self.length)
        elif self._keys is not None and not self._keys.is_contiguous():
            self._keys, self._values = self.keys.contiguous(), self.values.contiguous()

    def keep(self, index: Int[Tensor, "batch heads kept"]) -> None:
        """Keeps the slots at `index` (ascending; `PADDING` leaves a slot empty) and lets all others go.

        `heads` is kv_head, or 1 where all heads keep the same.
        """
        assert self._keys is not None
        slots = index.clamp(min=0)
        positions = self.positions.expand(-1, index.shape[1], -1).gather(-1, slots)
        self._positions = positions.masked_fill(index < 0, PADDING)
        wide = slots.expand(-1, self._keys.shape[1], -1)
        self._keys = _gather(self.keys, wide)
        self._values = _gather(self.values, wide)
        self.start, self.length = 0, index.shape[-1]

    def drop(self, index: Int[Tensor, "batch heads"]) -> None:
        """Drops one slot of each head: what stands before it moves up by one, and the first slot is let go.

        A token that is dropped near the front, as by a rolling window, costs next to nothing.
        """
        last = int(index.max())
        if index.shape[1] > self.positions.shape[1]:
            self._positions = self.positions.expand(-1, index.shape[1], -1).contiguous()
            self._keys, self._values = self.keys.contiguous(), self.values.contiguous()
            self.start = 0
        keys, values, positions = self.keys, self.values, self.positions
        if index.numel() == 1:
            front = keys[:, :, :last].clone(), values[:, :, :last].clone(), positions[..., :last].clone()
        else:
            # slot j moves up by one as long as it stands before the dropped one; the others stay
            slots = torch.arange(last, device=index.device)
            source = torch.where(slots < index.unsqueeze(-1), slots, slots + 1)
            wide = source.expand(-1, keys.shape[1], -1)
            front = _gather(keys, wide), _gather(values, wide), positions.gather(-1, source)
        keys[:, :, 1 : last + 1], values[:, :, 1 : last + 1], positions[..., 1 : last + 1] = front
        self.start += 1
        self.length -= 1

    def crop(self, count: int) -> None:
        """Takes the newest `count` slots back."""
        self.length -= count

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Makes these rows of the batch the new batch, in this order; a row may come more than once."""
        if self._keys is not None:
            self._keys = self.keys.index_select(0, rows.to(self._keys.device))
            self._values = self.values.index_select(0, rows.to(self._keys.device))
            self._positions = self.positions.index_select(0, rows.to(self._keys.device))
            self.start = 0

    def _live(self, buffer: Tensor | None) -> Tensor:
        assert buffer is not None, "the store is empty"
        axis = 2
        return buffer.narrow(axis, self.start, self.length)

    def _reallocate(self, capacity: int) -> None:
        def moved(buffer: Tensor | None) -> Tensor:
            live = self._live(buffer)
            fresh = live.new_empty((*live.shape[:2], capacity, *live.shape[3:]))
            fresh[:, :, : self.length] = live
            return fresh

        self._keys, self._values, self._positions = moved(self._keys), moved(self._values), moved(self._positions)
        self.start = 0


def _gather(
    pairs: Float[Tensor, "batch kv_head stored dim"], slots: Int[Tensor, "batch kv_head kept"]
) -> Float[Tensor, "batch kv_head kept dim"]:
    return pairs.gather(2, repeat(slots, "b h n -> b h n d", d=pairs.shape[-1]))
