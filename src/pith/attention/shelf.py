"""Packed tokens in columns."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from pith.attention.column import Column, gather
from pith.attention.storage import Packed

Tensors = dict[str, Tensor] | dict[str, Column]


class Shelf:
    """Packed tokens with groups of one size, in columns, so that appending to them costs no copy of the rest."""

    def __init__(self, packed: Packed) -> None:
        self.size, self.part = packed.size, packed.part
        self.tokens = {name: Column.of(t) for name, t in packed.tokens.items()}
        self.groups = {name: Column.of(t) for name, t in packed.groups.items()}
        self.group_of: Column | None = None  # each token's group, once tokens were let go; before, token // size

    @property
    def length(self) -> int:
        """The number of tokens."""
        return next(iter(self.tokens.values())).length

    def columns(self) -> Iterator[Column]:
        """Every column."""
        yield from self.tokens.values()
        yield from self.groups.values()
        if self.group_of is not None:
            yield self.group_of

    def takes(self, packed: Packed) -> bool:
        """Whether these can be appended."""
        return self.group_of is None and self.size == packed.size and (not self.groups or self.length % self.size == 0)

    def append(self, tokens: Tensors, groups: Tensors, decoding: bool = False) -> None:
        """Adds tokens behind the others."""
        for mine, new in ((self.tokens, tokens), (self.groups, groups)):
            for name, column in mine.items():
                added = new[name]
                column.append(added.dense() if isinstance(added, Column) else added, decoding)

    def blocks(self, limit: int) -> Iterator[Packed]:
        """The tokens, at most `limit` at a time: whole groups, or a part of one."""
        if self.group_of is not None:
            slots = torch.arange(self.length, device=self.group_of.dense().device)
            for start in range(0, self.length, limit):
                yield self.take(slots[None, None, start : start + limit])
            return
        tokens = {name: column.dense() for name, column in self.tokens.items()}
        groups = {name: column.dense() for name, column in self.groups.items()}
        start, whole = 0, limit // self.size * self.size
        while start < self.length:
            group = start // self.size
            end = min(start + whole if whole else min(start + limit, (group + 1) * self.size), self.length)
            yield Packed(
                {name: t.narrow(2, start, end - start) for name, t in tokens.items()},
                {name: t.narrow(2, group, -(-end // self.size) - group) for name, t in groups.items()},
                min(self.size, end - start),
                self.part,
            )
            start = end

    def take(self, index: Int[Tensor, "batch heads kept"]) -> Packed:
        """A copy of the tokens at `index`, each with a group of its own, or all with the only one."""
        tokens = {name: _gathered(column, index) for name, column in self.tokens.items()}
        if not self.groups:
            return Packed(tokens, {}, 1, self.part)
        if next(iter(self.groups.values())).length == 1:
            return Packed(tokens, {n: c.dense() for n, c in self.groups.items()}, index.shape[-1], self.part)
        of = self._groups_at(index)
        return Packed(tokens, {name: _gathered(c, of) for name, c in self.groups.items()}, 1, self.part)

    def keep(self, index: Int[Tensor, "batch heads kept"]) -> None:
        """Keeps the tokens at `index`, and the groups that one of them belongs to."""
        if self.groups and next(iter(self.groups.values())).length > 1:
            self._regroup(self._groups_at(index))
        elif self.groups:
            self.size = max(index.shape[-1], 1)
        for column in self.tokens.values():
            column.keep(index)

    def _regroup(self, of: Int[Tensor, "batch heads kept"]) -> None:
        """Makes these the groups of the tokens, and lets all other groups go."""
        first = next(iter(self.groups.values()))
        used = torch.zeros((*of.shape[:2], first.length), dtype=torch.bool, device=of.device).scatter_(2, of, True)
        if first.heads < of.shape[1]:
            used = used.any(dim=1, keepdim=True)
        most = int(used.sum(dim=-1).max())
        kept = used.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[..., :most]
        for column in self.groups.values():
            column.keep(kept)
        place = (used.cumsum(dim=-1) - 1).expand(-1, of.shape[1], -1)
        self.group_of = Column.of(place.gather(2, of).to(torch.int32))

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Makes these rows of the batch the new batch."""
        for column in self.columns():
            column.select(rows)

    def join(self, other: Shelf) -> None:
        """Takes the tokens of a shelf whose groups have another size behind its own."""
        mine, theirs = self._all_groups(), other._all_groups()
        shift = next(iter(self.groups.values())).length if self.groups else 0
        self.append(other.tokens, other.groups)
        if mine is not None and theirs is not None:
            heads = max(mine.shape[1], theirs.shape[1])
            both = [mine.expand(-1, heads, -1), theirs.expand(-1, heads, -1) + shift]
            self.group_of = Column.of(torch.cat(both, dim=2).to(torch.int32))

    def crop(self, count: int) -> None:
        """Takes the newest tokens back, and the groups that none is left of."""
        for column in self.tokens.values():
            column.crop(count)
        if self.group_of is not None:
            self.group_of.crop(count)
        else:
            for column in self.groups.values():
                column.crop(column.length - -(-self.length // self.size))

    def _all_groups(self) -> Int[Tensor, "batch heads token"] | None:
        if not self.groups:
            return None
        tokens = next(iter(self.tokens.values())).dense()
        index = torch.arange(self.length, device=tokens.device)
        return self._groups_at(index.expand(tokens.shape[0], 1, -1))

    def _groups_at(self, index: Int[Tensor, "rows some kept"]) -> Int[Tensor, "batch heads kept"]:
        if self.group_of is None:
            return index.clamp(min=0) // self.size
        return _gathered(self.group_of, index).long()


def _gathered(column: Column, index: Int[Tensor, "batch heads kept"]) -> Tensor:
    """The slots at `index`, also where one head of the column stands for all."""
    live = column.dense()
    if index.shape[1] > live.shape[1]:
        live = live.expand(-1, index.shape[1], *live.shape[2:])
    return gather(live, index)
