"""Heads that hold different numbers of tokens, in one flat tensor without a slot too many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pith.attention.column import Column
from pith.attention.storage import Context

if TYPE_CHECKING:
    from pith.attention.coded import Coded


@dataclass(frozen=True)
class Layout:
    """Where each head's tokens lie in a flat tensor, and which slots of the rectangle they are.

    Seen from outside, a ragged column is a rectangle [batch, head, width]; shorter heads begin with empty slots.

    Attributes:
        counts: [batch, head], tokens that each head holds.
        width: the largest of them.
        slots: [tokens], each token's slot in the rectangle, as an index into batch * head * width.
        ends: [batch * head], int32, where each head's tokens end in the flat tensor.
    """

    counts: Int[Tensor, "batch heads"]
    width: int
    slots: Int[Tensor, " tokens"]
    ends: Int[Tensor, " batch_heads"]

    @classmethod
    def of(cls, index: Int[Tensor, "batch heads kept"]) -> Layout:
        """The layout of what an eviction keeps; negative entries are no tokens."""
        real = index >= 0
        counts = real.sum(dim=-1)
        ends = counts.reshape(-1).cumsum(dim=0).to(torch.int32)
        return cls(counts, index.shape[-1], real.reshape(-1).nonzero()[:, 0], ends)

    def flat(self, rectangle: Tensor) -> Tensor:
        """[batch, head, width, ...] as [tokens, ...]."""
        return rectangle.flatten(0, 2).index_select(0, self.slots)

    def real(self) -> Bool[Tensor, "batch heads width"]:
        """Which slots of the rectangle hold a token."""
        slots = torch.arange(self.width, device=self.counts.device)
        return slots >= self.width - self.counts.unsqueeze(-1)

    def rectangle(self, flat: Tensor, empty: int) -> Tensor:
        """[tokens, ...] as [batch, head, width, ...], with `empty` where there is no token."""
        out = flat.new_full((self.counts.numel() * self.width, *flat.shape[1:]), empty)
        return out.index_copy_(0, self.slots, flat).view(*self.counts.shape, self.width, *flat.shape[1:])

    def at(self, index: Int[Tensor, "batch heads read"]) -> Int[Tensor, "batch heads read"]:
        """The places in the flat tensor of these slots of the rectangle; empty slots give a place of some token."""
        starts = (self.ends.long() - self.counts.reshape(-1)).view(*self.counts.shape, 1)
        place = index + starts - (self.width - self.counts.unsqueeze(-1))
        return place.clamp(min=0, max=max(int(self.ends[-1]) - 1, 0))


class Ragged:
    """A column whose heads hold different numbers of tokens: a flat part, and behind it a column for what came later.

    Args:
        layout: of the flat part.
        past: the flat part as a column [1, 1, tokens, ...], plain or coded.
        rest: a column [batch, head, later, ...] that new tokens are appended to.
        empty: what an empty slot holds when the column is seen as a rectangle.
        merges: whether what is kept of both parts becomes flat; else it stays as it is, for one that is coded.
    """

    plain = False

    def __init__(
        self, layout: Layout, past: Column | Coded, rest: Column | Coded, empty: int = 0, merges: bool = False
    ) -> None:
        self._layout, self._past, self._rest, self._empty, self._merges = layout, past, rest, empty, merges

    @property
    def length(self) -> int:
        """Slots of a head, empty ones included."""
        return self._layout.width + self._rest.length

    @property
    def heads(self) -> int:
        """The number of heads."""
        return self._layout.counts.shape[1]

    @property
    def dim(self) -> int:
        """The size of a slot."""
        return self._rest.dim

    def dense(self) -> Tensor:
        """The rectangle [batch, head, stored, ...], made anew."""
        past = self._layout.rectangle(self._past.dense()[0, 0], self._empty)
        return torch.cat([past, self._rest.dense()], dim=2) if self._rest.length else past

    def real(self) -> Bool[Tensor, "batch heads stored"]:
        """Which slots hold a token, of a column whose empty slots are negative."""
        past = self._layout.real()
        return torch.cat([past, self._rest.dense() >= 0], dim=2) if self._rest.length else past

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that is held."""
        yield from self._past.tensors()
        yield from self._rest.tensors()

    def append(self, new: Tensor, decoding: bool) -> None:
        """Adds slots behind the others, one for each head."""
        if new.shape[1] != self.heads:
            new = new.expand(-1, self.heads, *new.shape[2:])
        self._rest.append(new, decoding)

    def put(self, slots: Tensor) -> None:
        """Writes every slot of the rectangle anew, where both parts are plain."""
        width = self._layout.width
        self._past.dense().copy_(self._layout.flat(slots[:, :, :width])[None, None])
        if self._rest.length:
            self._rest.dense().copy_(slots[:, :, width:])

    def pack(self, context: Context, prefill: bool, undo: bool = False) -> None:
        """Encodes what is due of what came later."""
        self._rest.pack(context, prefill, undo)

    def confirm(self) -> None:
        """Forget how to undo what was encoded."""
        self._rest.confirm()

    def until_due(self, most: int) -> int:
        """Return how many decoded tokens, `most` at most, can be appended before some are to be encoded."""
        return self._rest.until_due(most)

    def settle(self) -> None:
        """Makes the buffers exactly as long as what they hold."""
        self._past.settle()
        self._rest.settle()

    def keep(self, index: Int[Tensor, "batch heads kept"]) -> None:
        """Keeps the slots at `index` of what came later, and of the flat part, and lets all others go.

        Unless it `merges`, what is kept of either part stays in it, so that the number of slots may be larger than
        `index` is long; a slot between the two may be empty.
        """
        batch, heads = self._layout.counts.shape
        index = index.expand(batch, heads, -1)
        if self._merges:
            self._merge(align(index))
            return
        width = self._layout.width
        older = align(torch.where(index < width, index, -1))
        later = align(torch.where(index >= width, index - width, -1))
        layout = Layout.of(older)
        self._past.keep(layout.flat(self._layout.at(older))[None, None])
        self._rest.keep(later)
        self._layout = layout

    def _merge(self, index: Int[Tensor, "batch heads kept"]) -> None:
        flat, later, width = self._past.dense()[0, 0], self._rest.dense(), self._layout.width
        head = torch.arange(index.shape[0] * index.shape[1], device=index.device).view(*index.shape[:2], 1)
        behind = len(flat) + head * later.shape[2] + index - width
        places = torch.where(index < width, self._layout.at(index), behind)
        self._layout = Layout.of(index)
        both = torch.cat([flat, later.flatten(0, 2)])
        self._past = Column.of(both[self._layout.flat(places).to(both.device)][None, None])
        self._rest.keep(index[..., :0])

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Makes these rows of the batch the new batch."""
        slots, held = torch.arange(self._layout.width, device=rows.device), self._layout.real()
        index = torch.where(held, slots, -1)[rows]
        places = self._layout.at(torch.where(held, slots, 0))[rows]
        self._layout = Layout.of(index)
        self._past.keep(self._layout.flat(places)[None, None])
        self._rest.select(rows)

    def crop(self, count: int) -> None:
        """Takes the newest `count` slots back, which came after the flat part."""
        self._rest.crop(count)

    def gather(self, index: Int[Tensor, "batch heads read"]) -> Tensor:
        """A copy of the slots at `index`, [batch, head, read, ...]."""
        batch, heads = self._layout.counts.shape
        index = index.expand(batch, heads, -1)
        width = self._layout.width
        older = self._layout.at(index.clamp(min=0, max=width - 1)).reshape(1, 1, -1)
        out = self._past.gather(older)[0, 0]
        out = out.view(*index.shape, *out.shape[1:])
        if self._rest.length:
            later = self._rest.gather((index - width).clamp(min=0))
            behind = (index >= width).reshape(*index.shape, *[1] * (out.ndim - 3))
            out = torch.where(behind, later, out)
        return out

    def _as_rectangle(self, factor: Tensor) -> bool:
        """Whether a product is computed without grouping, which has no gradient at all lengths and no float64."""
        past = self._past.dense()
        return past.requires_grad or factor.requires_grad or past.dtype == torch.float64

    def dot(self, query: Float[Tensor, "batch kv_head query head_dim"]) -> Float[Tensor, "batch kv_head query stored"]:
        """The products of queries with each slot; 0 for empty ones."""
        if not self._layout.width:
            return self._rest.dot(query)
        if self._as_rectangle(query):
            return query.to(self.dense().dtype) @ self.dense().transpose(-1, -2)
        keys = self._past.dense()[0, 0]
        asked = query.flatten(0, 1).to(keys.dtype)
        flat = F.grouped_mm(_aligned(keys), _aligned(asked).transpose(-1, -2), offs=self._layout.ends)
        logits = rearrange(self._layout.rectangle(flat, 0), "b h n query -> b h query n")
        return torch.cat([logits, self._rest.dot(query)], dim=-1) if self._rest.length else logits

    def mix(
        self, weights: Float[Tensor, "batch kv_head query stored"]
    ) -> Float[Tensor, "batch kv_head query value_dim"]:
        """The sums of the slots by weights."""
        width = self._layout.width
        if not width:
            return self._rest.mix(weights)
        if self._as_rectangle(weights):
            return weights.to(self.dense().dtype) @ self.dense()
        values = self._past.dense()[0, 0]
        flat = self._layout.flat(rearrange(weights[..., :width], "b h query n -> b h n query").to(values.dtype))
        out = F.grouped_mm(_aligned(flat.t()), _aligned(values), offs=self._layout.ends)
        out = out.view(*self._layout.counts.shape, *out.shape[1:])
        return out + self._rest.mix(weights[..., width:]) if self._rest.length else out


def _aligned(matrix: Tensor) -> Tensor:
    """The same numbers in rows that begin at multiples of 16 bytes, as grouped products ask for."""
    columns, step = matrix.shape[-1], 16 // matrix.element_size()
    if matrix.stride(-1) == 1 and matrix.stride(-2) % step == 0:
        return matrix
    roomy = matrix.new_empty((*matrix.shape[:-1], -(-columns // step) * step))
    roomy[..., :columns] = matrix
    return roomy[..., :columns]


def align(index: Int[Tensor, "batch heads kept"]) -> Int[Tensor, "batch heads most"]:
    """The entries that are not negative, in their order, behind as many -1 as the longest head leaves the others."""
    most = int((index >= 0).sum(dim=-1).max()) if index.numel() else 0
    order = (index >= 0).to(torch.int8).argsort(dim=-1, stable=True)
    return index.gather(-1, order)[..., index.shape[-1] - most :]
