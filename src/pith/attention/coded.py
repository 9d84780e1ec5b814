"""A column whose older tokens are in a storage's form and whose newest are as they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention.column import Column
from pith.attention.shelf import Shelf
from pith.attention.storage import Context, Packed, Part, Storage

BLOCK = 2**19
"""Packed numbers that attention decodes at a time: few enough for a processor's cache, enough to keep it busy."""


class Coded:
    """A column in which a `Storage` acts: shelves of packed tokens, and behind them tokens in full precision.

    Args:
        storage: the method.
        part: whether keys or values are held.
    """

    def __init__(self, storage: Storage, part: Part) -> None:
        self.storage, self.part = storage, part
        self.shelves: list[Shelf] = []
        self.recent = Column()
        self._undo: list[tuple[int, Tensor]] = []  # slots at that time, and tokens that were then packed

    @classmethod
    def of(cls, storage: Storage, part: Part, x: Tensor) -> Coded:
        """A column in which all of `x` is packed."""
        column = cls(storage, part)
        if x.shape[2]:
            column._shelve(x, Context(), decoding=False)
        column.recent.append(x[:, :, :0], decoding=False)
        return column

    @property
    def plain(self) -> bool:
        """Whether nothing is packed, so that `dense` is a view."""
        return not self.shelves

    @property
    def packed(self) -> int:
        """The number of tokens that are packed; the others are in full precision."""
        return sum(shelf.length for shelf in self.shelves)

    @property
    def length(self) -> int:
        """The number of slots."""
        return self.packed + self.recent.length

    @property
    def heads(self) -> int:
        """The number of heads."""
        return self.recent.heads

    @property
    def dim(self) -> int:
        """The size of a slot."""
        return self.recent.dim

    def dense(self) -> Tensor:
        """Everything decoded, [batch, head, stored, dim], made anew where something is packed."""
        if not self.shelves:
            return self.recent.dense()
        parts = [self.storage.decode(b) for b in self._blocks()]
        return torch.cat([*parts, self.recent.dense()], dim=2)

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that is held."""
        for shelf in self.shelves:
            for column in shelf.columns():
                yield from column.tensors()
        yield from self.recent.tensors()
        yield from (tokens for _, tokens in self._undo)

    def append(self, new: Tensor, decoding: bool) -> None:
        """Adds tokens behind the others, in full precision."""
        self.recent.append(new, decoding)

    def pack(self, context: Context, prefill: bool, undo: bool = False) -> None:
        """Encode what is due; with `undo` the tokens are also held as they were, until `confirm`."""
        held = self.recent.length
        count = self.storage.due(self.part, held, prefill)
        if count:
            real = None if context.real is None else context.real[..., context.real.shape[-1] - held :]
            recent = self.recent.dense()
            if undo:
                self._undo.append((self.length, recent[:, :, :count].clone()))
            context = replace(context, rest=recent[:, :, count:], real=real)
            self._shelve(recent[:, :, :count], context, decoding=not prefill)
            self.recent.forget(count)

    def confirm(self) -> None:
        """Forget how to undo what was encoded."""
        self._undo.clear()

    def until_due(self, most: int) -> int:
        """Return how many decoded tokens, `most` at most, can be appended before some are to be encoded."""
        held = self.recent.length
        return next((n for n in range(1, most) if self.storage.due(self.part, held + n, False)), most)

    def settle(self) -> None:
        """Makes the buffers exactly as long as what they hold."""
        for shelf in self.shelves:
            for column in shelf.columns():
                column.settle()
        self.recent.settle()

    def keep(self, index: Int[Tensor, "batch heads kept"]) -> None:
        """Keeps the slots at `index`; no token is encoded a second time.

        What is packed stays packed. Where heads keep different numbers of the tokens in full precision, these stay so
        only as far as the shortest goes, and the others are encoded now.
        """
        if not self.shelves:
            self.recent.keep(index)
            return
        before, young = self.packed, int((index >= self.packed).sum(dim=-1).min())
        old, new = index[..., : index.shape[-1] - young], index[..., index.shape[-1] - young :]
        early = int(old.max()) + 1 - before if old.shape[-1] else 0
        if early > 0:
            # what no head keeps is to leave no mark on those that are kept
            kept = torch.zeros((*old.shape[:2], early + 1), dtype=torch.bool, device=old.device)
            kept.scatter_(2, torch.where(old >= before, old - before, early), True)
            self._shelve(self.recent.dense()[:, :, :early], Context(real=kept[..., :early]), decoding=False)
        self._keep_packed(old)
        self.recent.keep(new - before)

    def _keep_packed(self, index: Int[Tensor, "batch heads kept"]) -> None:
        first, *others = self.shelves
        for shelf in others:
            first.join(shelf)
        first.keep(index)
        self.shelves = [first] if first.length else []

    def _shelve(self, x: Tensor, context: Context, decoding: bool) -> None:
        with torch.no_grad():  # codes have no gradient; see `Store.cut`
            packed = self.storage.encode(x.detach(), self.part, context)
        if self.shelves and self.shelves[-1].takes(packed):
            self.shelves[-1].append(packed.tokens, packed.groups, decoding)
        else:
            self.shelves.append(Shelf(packed))

    def drop(self, index: Int[Tensor, "batch heads"]) -> None:
        """Drops one slot of each head, as long as nothing is packed."""
        assert self.plain, "packed slots are marked and let go together"
        self.recent.drop(index)

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Makes these rows of the batch the new batch."""
        for shelf in self.shelves:
            shelf.select(rows)
        self.recent.select(rows)

    def crop(self, count: int) -> None:
        """Takes the newest `count` slots back, and those encoded meanwhile out of their packed form (see `pack`)."""
        while self._undo and self._undo[-1][0] > self.length - count:
            _, tokens = self._undo.pop()
            self._crop_packed(tokens.shape[2])
            younger = self.recent.dense()
            self.recent = Column.of(torch.cat([tokens, younger], dim=2))
        young = min(count, self.recent.length)
        self.recent.crop(young)
        self._crop_packed(count - young)

    def _crop_packed(self, count: int) -> None:
        while count:
            last = self.shelves[-1]
            more = min(count, last.length)
            last.crop(more)
            count -= more
            if not last.length:
                self.shelves.pop()

    def gather(self, index: Int[Tensor, "batch heads read"]) -> Tensor:
        """A copy of the slots at `index`, decoded, [batch, head, read, dim]."""
        begin, out = 0, None
        for shelf in self.shelves:
            mine = self.storage.decode(shelf.take((index - begin).clamp(0, shelf.length - 1)))
            out = mine if out is None else torch.where((index >= begin).unsqueeze(-1), mine, out)
            begin += shelf.length
        if not self.recent.length:
            assert out is not None, "the store is empty"
            return out
        late = self.recent.gather((index - begin).clamp(0, self.recent.length - 1))
        return late if out is None else torch.where((index >= begin).unsqueeze(-1), late, out)

    def dot(self, query: Float[Tensor, "batch kv_head query head_dim"]) -> Float[Tensor, "batch kv_head query stored"]:
        """The products of queries with each slot, for a column of keys."""
        if not self.shelves:
            return self.recent.dot(query)
        parts = [self.storage.dot(query, b) for b in self._blocks()]
        return torch.cat([*parts, self.recent.dot(query)], dim=-1)

    def mix(
        self, weights: Float[Tensor, "batch kv_head query stored"]
    ) -> Float[Tensor, "batch kv_head query value_dim"]:
        """The sums of the slots by weights, for a column of values."""
        out = self.recent.mix(weights[..., self.packed :])
        begin = 0
        for block in self._blocks():
            out = out + self.storage.mix(weights[..., begin : begin + block.count], block)
            begin += block.count
        return out

    def _blocks(self) -> Iterator[Packed]:
        rows = self.recent.dense().shape[0]
        limit = max(BLOCK // (rows * self.heads * self.dim), 1)
        for shelf in self.shelves:
            yield from shelf.blocks(limit)
