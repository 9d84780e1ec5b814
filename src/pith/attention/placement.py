"""Placing stored keys at their index in the cache, as if the tokens dropped between them had never been.

Rotary attention sees distances only. The run of tokens that ends with the newest has the same distances in the text as
in the cache, so its keys stay as the model rotated them; the keys before the last gap are moved up to it. Of these the
keys as they were before their rotation are kept as well: they are turned back once, and each later place is computed
from them, so that no rounding adds up.
"""

from __future__ import annotations

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention.call import Call
from pith.attention.rotary import Rotary
from pith.attention.store import Store
from pith.core import ModelError


class Placement:
    """The moved keys of one layer's store.

    Attributes:
        raw: [batch, kv_head, moved, head_dim], the first keys of the store before their rotation; None while no token
            was dropped.
    """

    def __init__(self, rotary: Rotary) -> None:
        self._rotary = rotary
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._stale = False  # whether tokens were dropped since the moved keys were placed
        self.raw: Float[Tensor, "batch kv_head moved head_dim"] | None = None

    def place(self, call: Call, store: Store) -> None:
        """Rotates the moved keys to where they stand now: directly before the run that ends with the newest token."""
        if self.raw is None or not self.raw.shape[2] or not self._stale:
            return
        moved = self.raw.shape[2]
        tables = self._rotary.tables_before(text_positions(call), store.length, moved, self.raw)
        store.keys[:, :, :moved] = self._rotary.rotate(self.raw, tables)
        self._stale = False

    def turn_back(
        self, call: Call, store: Store, index: Int[Tensor, "batch 1 kept"], moved: int
    ) -> Float[Tensor, "batch kv_head moved head_dim"]:
        """The keys before their rotation of the first `moved` slots that an eviction keeps.

        Args:
            index: the slots that are kept, in the numbering before the eviction.
        """
        first = index[..., :moved].clamp(min=0)
        wide = repeat(first, "b 1 n -> b h n d", h=store.keys.shape[1], d=store.keys.shape[-1])
        newest = store.positions[:, 0, -1:]
        text = store.positions[:, 0].gather(-1, first[:, 0]) + (text_positions(call)[:, -1:] - newest)
        tables = self._rotary.tables(text.clamp(min=0).long(), store.keys)
        raw = self._rotary.unrotate(store.keys.gather(2, wide), tables)
        if self.raw is None or not self.raw.shape[2]:
            return raw
        known = self.raw.shape[2]
        before = self.raw.gather(2, wide.clamp(max=known - 1))
        return torch.where(wide < known, before, raw)

    def hold(self, raw: Float[Tensor, "batch kv_head moved head_dim"]) -> None:
        """Takes what `turn_back` gave, once the store has let the dropped tokens go."""
        self.raw, self._stale = raw, True

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Makes these rows of the batch the new batch."""
        if self.raw is not None:
            self.raw = self.raw[rows]


def before_last_gap(positions: Int[Tensor, "batch 1 kept"]) -> int:
    """How many slots stand before the last gap of any row."""
    gaps = (positions.diff(dim=-1) != 1).any(dim=1).any(dim=0).nonzero()
    return int(gaps[-1]) + 1 if len(gaps) else 0


def text_positions(call: Call) -> Int[Tensor, "batch query"]:
    """The places in the text of the new tokens.

    Raises:
        ModelError: the model does not hand them on.
    """
    if call.positions is None or call.positions.ndim != 2:
        raise ModelError(
            f"{type(call.module).__name__} does not hand position_ids to its attention function, so its keys cannot be "
            "placed at other positions"
        )
    return call.positions
