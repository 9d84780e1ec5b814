"""What carries an eviction out in one layer: it knows the limit of each row, and drops what is over it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention.call import Call
from pith.attention.eviction import Eviction
from pith.attention.placement import Placement, before_last_gap
from pith.attention.step import Step
from pith.attention.store import PADDING, Store
from pith.core import parse_budget


class Evictor:
    """One layer's eviction.

    Args:
        eviction: the method.
        layers: the number of layers that share a budget in bytes.
        placement: given where the method places stored keys at their index in the cache.
    """

    def __init__(self, eviction: Eviction, layers: int, placement: Placement | None) -> None:
        self.eviction = eviction
        self.placement = placement
        self._layers = layers
        self._keeps_all = parse_budget(eviction.budget).everything
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._limit: Int[Tensor, " batch"] | None = None
        self._slots = 0  # the largest limit of a row
        if self.placement is not None:
            self.placement.reset()

    def due(self, prefill: bool) -> bool:
        """Whether this forward may evict."""
        return not self._keeps_all and (prefill or self.eviction.every_step)

    def evict(self, call: Call, step: Step, store: Store, seen: Int[Tensor, " batch"] | int) -> bool:
        """Drops what is over the budget; says whether anything was.

        Args:
            call, step: the forward that has just attended.
            store: the layer's store.
            seen: the real tokens that each row has seen.
        """
        if step.prefill or self._limit is None:
            rows = torch.as_tensor(seen, device=store.keys.device).expand(store.keys.shape[0])
            self._limit = self.eviction.limit(rows, self._token_bytes(store))
            self._slots = int(self._limit.max())
        if store.length <= self._slots and not (step.prefill and store.padded and self._row_is_over(store)):
            return False
        scores = self.eviction.score(step)
        if store.length == self._slots + 1 and not step.prefill:
            self._drop_one(call, store, worst(scores, store.positions, self._limit, store.padded))
        else:
            self._keep(call, store, best(scores, store.positions, self._limit))
        return True

    def _keep(self, call: Call, store: Store, index: Int[Tensor, "batch heads kept"]) -> None:
        if self.placement is None:
            store.keep(index)
            return
        moved = before_last_gap(store.positions.gather(-1, index.clamp(min=0)))
        raw = self.placement.turn_back(call, store, index, moved)
        store.keep(index)
        self.placement.hold(raw)

    def _drop_one(self, call: Call, store: Store, slot: Int[Tensor, "batch heads"]) -> None:
        if self.placement is None:
            store.drop(slot)
            return
        raw = self.placement.raw
        known = 0 if raw is None else raw.shape[2]
        last = int(slot.max())
        if raw is None or last != known or bool((slot != known).any()):
            moved = torch.arange(last if last >= known else known - 1, device=slot.device)
            index = torch.where(moved < slot.unsqueeze(-1), moved, moved + 1)
            raw = self.placement.turn_back(call, store, index, len(moved))
        store.drop(slot)
        self.placement.hold(raw)

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Makes these rows of the batch the new batch."""
        if self._limit is not None:
            self._limit = self._limit[rows]
        if self.placement is not None:
            self.placement.select(rows)

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that the eviction holds in the cache."""
        if self.placement is not None and self.placement.raw is not None:
            yield self.placement.raw

    def _row_is_over(self, store: Store) -> bool:
        """Whether a short row of a padded batch holds more than its own limit, which is below that of a longer row."""
        assert self._limit is not None
        return bool(((store.positions >= 0).sum(dim=-1) > self._limit[:, None]).any())

    def _token_bytes(self, store: Store) -> int:
        """Bytes that one token of one row takes over all layers that share the budget."""
        pair = (store.keys.shape[-1] + store.values.shape[-1]) * store.keys.element_size()
        return (pair + store.positions.element_size()) * store.keys.shape[1] * self._layers


def best(
    scores: Float[Tensor, "batch heads key"],
    positions: Int[Tensor, "batch position_heads key"],
    limit: Int[Tensor, " batch"],
) -> Int[Tensor, "batch heads kept"]:
    """The slots of each row's best-scored tokens, in position order; rows that keep fewer begin with `PADDING`.

    Of equal scores the later token is kept.
    """
    real = positions >= 0
    count = torch.minimum(limit.unsqueeze(-1), real.sum(dim=-1))
    kept = int(count.max())
    ranked = scores.float().masked_fill(~real, float("-inf")).argsort(dim=-1, stable=True)
    chosen = ranked[..., ranked.shape[-1] - kept :]
    fits = torch.arange(kept, 0, -1, device=scores.device) <= count.unsqueeze(-1)
    return torch.where(fits, chosen, PADDING).sort(dim=-1).values


def worst(
    scores: Float[Tensor, "batch heads key"],
    positions: Int[Tensor, "batch position_heads key"],
    limit: Int[Tensor, " batch"],
    padded: bool,
) -> Int[Tensor, "batch heads"]:
    """The one slot that each head gives up: an empty one where the row is within its limit, else the worst token.

    Of equal scores the earlier token is given up.
    """
    if padded:
        real = positions >= 0
        within = real.sum(dim=-1, keepdim=True) <= limit[:, None, None]
        scores = torch.where(real, scores.float(), torch.where(within, float("-inf"), float("inf")))
    return scores.argmin(dim=-1)
