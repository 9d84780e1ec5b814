"""What one layer's cache holds, and the only place that lets pairs go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pith.attention.coded import Coded
from pith.attention.column import HEADROOM, Column, gather
from pith.attention.ragged import Layout, Ragged, align
from pith.attention.storage import Context, Part, Storage

PADDING = -1
"""The position of a slot that holds no token: padding of the prompt, or a row that keeps fewer pairs than another."""

AnyColumn: TypeAlias = Column | Coded | Ragged
"""The forms in which a tensor is held; all answer the same calls."""


class Store:
    """Keys, values and original positions of one layer, in position order, each a column with the same slots.

    Args:
        storage: the method whose form pairs are held in; None holds them as they are.
        device: where keys and values are held; None is where they were made.

    Attributes:
        keys: [batch, kv_head, stored, head_dim], values: [batch, kv_head, stored, value_dim].
        positions: [batch, 1 or kv_head, stored], int32; a token's index among the real tokens of its row. It has one
            head while all heads hold the same tokens.
        carried: [batch, heads, stored], float32, a number that an eviction keeps for each pair; None if it keeps none.
        padded: whether a slot may hold no token.
        cut: whether gradients do not reach the tokens of all that is held.
        dead: slots of each head that were given up one at a time and are still there (see `drop`).
    """

    def __init__(self, storage: Storage | None = None, device: torch.device | None = None) -> None:
        self._storage, self._device = storage, device
        self.key_column: AnyColumn = self._column("keys")
        self.value_column: AnyColumn = self._column("values")
        self._positions: AnyColumn = Column(PADDING)
        self._carried: AnyColumn | None = None
        self.padded = False
        self.dead = 0
        self.cut = False
        self._tracked = False

    @property
    def length(self) -> int:
        """The number of slots of a head."""
        return self._positions.length

    @property
    def plain(self) -> bool:
        """Whether keys and values are tensors that a fused kernel can read where they are."""
        return self.key_column.plain and self.value_column.plain and self._device is None

    @property
    def keys(self) -> Float[Tensor, "batch kv_head stored head_dim"]:
        """The stored keys: a view where they are plain, else made anew."""
        return self.key_column.dense().to(self._positions.dense().device)

    @property
    def values(self) -> Float[Tensor, "batch kv_head stored value_dim"]:
        """The stored values: a view where they are plain, else made anew."""
        return self.value_column.dense().to(self._positions.dense().device)

    @property
    def positions(self) -> Int[Tensor, "batch heads stored"]:
        """The stored pairs' positions; `PADDING` marks a slot without a token."""
        return self._positions.dense()

    @property
    def real(self) -> Bool[Tensor, "batch heads stored"]:
        """Which slots hold a token."""
        return self._positions.real() if isinstance(self._positions, Ragged) else self._positions.dense() >= 0

    def positions_at(self, index: Int[Tensor, "batch heads read"], group: int = 1) -> Int[Tensor, "batch heads read"]:
        """The positions of the slots at `index`, whose heads are one, kv_head, or query_head (kv_head * group)."""
        positions = self.positions
        if positions.shape[1] > 1 and index.shape[1] > positions.shape[1]:
            positions = positions.repeat_interleave(group, dim=1)
        heads = max(positions.shape[1], index.shape[1])
        found = positions.expand(-1, heads, -1).gather(2, index.clamp(min=0).expand(-1, heads, -1))
        return found.masked_fill(index < 0, PADDING)

    @property
    def carried(self) -> Float[Tensor, "batch heads stored"] | None:
        """The number that an eviction keeps for each pair."""
        return None if self._carried is None else self._carried.dense()

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that is held, headroom included."""
        for column in self._columns():
            yield from column.tensors()

    def extras(self) -> Iterator[Tensor]:
        """What is held beside keys and values: positions, and what an eviction carries."""
        for column in self._columns():
            if column is not self.key_column and column is not self.value_column:
                yield from column.tensors()

    def append(
        self,
        keys: Float[Tensor, "batch kv_head new head_dim"],
        values: Float[Tensor, "batch kv_head new value_dim"],
        positions: Int[Tensor, "batch 1 new"],
        decoding: bool,
    ) -> None:
        """Adds pairs behind the others; what comes first is taken as it is, without a copy (see `settle`)."""
        self._tracked = self._tracked or keys.requires_grad or values.requires_grad
        if self._device is not None:
            keys, values = keys.to(self._device), values.to(self._device)
        held = self._positions.length and self._positions.dense().shape[1]
        self.key_column.append(keys, decoding)
        self.value_column.append(values, decoding)
        self._positions.append(positions.expand(-1, held, -1) if held else positions, decoding)
        if self._carried is not None:
            heads = self._carried.dense().shape[1]
            self._carried.append(
                positions.new_zeros((1,), dtype=torch.float32).expand(len(positions), heads, positions.shape[2]),
                decoding,
            )

    def carry(self, numbers: Float[Tensor, "batch heads stored"]) -> None:
        """Keeps a number for each slot, in place of the one before."""
        numbers = numbers.detach()
        if self._carried is None:
            self._carried = Column.of(numbers.float())
        elif isinstance(self._carried, Ragged):
            self._carried.put(numbers)
        else:
            self._carried.dense().copy_(numbers)

    def settle(
        self, query: Tensor | None = None, prefill: bool = True, asks: Tensor | None = None, undo: bool = False
    ) -> None:
        """Encodes what the storage asks for, and after a prompt makes the buffers as long as what they hold.

        Args:
            query: the queries of the forward that has just attended.
            prefill: whether it was a prompt, or a part of one.
            asks: [batch, query], which of the queries are no padding; None is all.
            undo: whether `crop` is to be able to take back what is encoded now, until `confirm`.
        """
        if self._storage is not None:
            context = Context(query=query, asks=asks, real=self.positions >= 0 if self.padded else None)
            for column in (self.key_column, self.value_column):
                column.pack(context, prefill, undo)
            if not (self.key_column.plain and self.value_column.plain):
                self._note_cut()
        if prefill:
            for column in self._columns():
                column.settle()

    def confirm(self) -> None:
        """Forget how to undo what was encoded (see `settle`)."""
        for column in (self.key_column, self.value_column):
            column.confirm()

    def until_due(self, most: int) -> int:
        """Return how many decoded tokens, `most` at most, can be appended before some are to be encoded."""
        return min(column.until_due(most) for column in (self.key_column, self.value_column))

    def keep(self, index: Int[Tensor, "batch heads kept"], ragged: bool = False) -> None:
        """Keeps the slots at `index` (ascending; `PADDING` leaves a slot empty) and lets all others go.

        Args:
            index: `heads` is kv_head, or 1 where all heads keep the same.
            ragged: whether heads that keep fewer than others take no memory for what they do not keep.
        """
        self.dead = 0
        if ragged and not isinstance(self._positions, Ragged):
            self._make_ragged(index)
        else:
            for column in self._columns():
                column.keep(index)
        self.padded = self.padded or isinstance(self._positions, Ragged) or bool((index < 0).any())
        self._note_cut()

    def _note_cut(self) -> None:
        if self._tracked and not self.cut:
            encoded = self._storage is not None and not (self.key_column.plain and self.value_column.plain)
            self.cut = encoded or not torch.is_grad_enabled()

    def _make_ragged(self, index: Int[Tensor, "batch heads kept"]) -> None:
        """The older tokens of each head into one flat tensor, the newest, which a storage keeps as they are, behind."""
        stay, heads = 0, self.key_column.dense().shape[1]
        index = index.expand(-1, heads, -1)
        if self._storage is not None:
            shortest = int((index >= 0).sum(dim=-1).min())
            stay = max(shortest - self._storage.due(part, shortest, True) for part in get_args(Part))
        older, young = align(index[..., : index.shape[-1] - stay]), index[..., index.shape[-1] - stay :]
        layout = Layout.of(older)

        def made(column: AnyColumn, part: Part | None, empty: int) -> Ragged:
            live = column.dense()
            live = live.expand(-1, heads, *live.shape[2:])
            flat = layout.flat(gather(live, older))[None, None]
            past: Column | Coded = Column.of(flat)
            rest: Column | Coded = Column(empty)
            if part is not None and self._storage is not None:
                past, rest = Coded.of(self._storage, part, flat), Coded(self._storage, part)
            rest.append(gather(live, young), decoding=False)
            return Ragged(layout, past, rest, empty, merges=self._storage is None)

        self.key_column = made(self.key_column, "keys", 0)
        self.value_column = made(self.value_column, "values", 0)
        self._positions = made(self._positions, None, PADDING)
        if self._carried is not None:
            self._carried = made(self._carried, None, 0)

    def drop(self, index: Int[Tensor, "batch heads"]) -> None:
        """Drops one slot of each head.

        Where pairs are plain their memory is let go at once. Where they are packed the slot is only marked, and a
        sixteenth of them (at least `HEADROOM`) is let go together.
        """
        if self.plain:
            for column in self._columns():
                assert not isinstance(column, Ragged), "a ragged column is never plain"
                column.drop(index)
            return
        positions = self._positions.dense()
        if index.shape[1] > positions.shape[1]:
            self._positions = Column.of(positions.expand(-1, index.shape[1], -1).contiguous(), PADDING)
        self._positions.dense().scatter_(2, index.unsqueeze(-1), PADDING)
        self.padded, self.dead = True, self.dead + 1
        if self.dead >= max(HEADROOM, self.length // 16):
            slots = torch.arange(self.length, device=index.device)
            self.keep(align(torch.where(self.positions >= 0, slots, PADDING)))

    def crop(self, count: int) -> None:
        """Takes the newest `count` slots back."""
        for column in self._columns():
            column.crop(count)

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Makes these rows of the batch the new batch, in this order; a row may come more than once."""
        for column in self._columns():
            column.select(rows)

    def gather(
        self, index: Int[Tensor, "batch heads read"]
    ) -> tuple[Float[Tensor, "batch kv_head read head_dim"], Float[Tensor, "batch kv_head read value_dim"]]:
        """Copies of the keys and values at `index`, on the index's device; negative ones give what may be."""
        keys, values = self.key_column.gather(index), self.value_column.gather(index)
        return keys.to(index.device), values.to(index.device)

    def dot(self, query: Float[Tensor, "batch kv_head query head_dim"]) -> Float[Tensor, "batch kv_head query stored"]:
        """The products of queries with every stored key."""
        return self.key_column.dot(query) if self._device is None else query @ self.keys.transpose(-1, -2)

    def mix(
        self, weights: Float[Tensor, "batch kv_head query stored"]
    ) -> Float[Tensor, "batch kv_head query value_dim"]:
        """The sums of all stored values by weights."""
        return self.value_column.mix(weights) if self._device is None else weights.to(self.values.dtype) @ self.values

    def _columns(self) -> Iterator[AnyColumn]:
        yield from (self.key_column, self.value_column, self._positions)
        if self._carried is not None:
            yield self._carried

    def _column(self, part: Part) -> AnyColumn:
        return Column() if self._storage is None else Coded(self._storage, part)
