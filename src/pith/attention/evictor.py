"""What carries an eviction out in one layer: it knows the limit of each row, and drops what is over it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention.call import Call
from pith.attention.column import HEADROOM
from pith.attention.eviction import Allocation, Retention, Seat
from pith.attention.placement import Placement, before_last_gap
from pith.attention.step import Step
from pith.attention.store import PADDING, Store
from pith.core import Method


class Evictor:
    """One layer's eviction.

    Args:
        eviction: the method.
        seat: the layer's index among those that evict, and how many there are.
        placement: given where the method places stored keys at their index in the cache.
    """

    def __init__(self, eviction: Retention, seat: tuple[int, int], placement: Placement | None) -> None:
        self.eviction = eviction
        self.placement = placement
        self._seat = seat
        self._carries = overrides(eviction, "carry")
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._limit: Int[Tensor, " batch"] | None = None
        self._slots = 0  # the largest limit of a row
        self._cut_to = 0  # the slots that were left when heads of unequal length were last looked at
        if self.placement is not None:
            self.placement.reset()

    def due(self, prefill: bool) -> bool:
        """Whether this forward may evict, or changes what the method keeps for each pair."""
        return not self.eviction.keeps_all and (prefill or self.eviction.every_step or self._carries)

    def evict(self, call: Call, step: Step, seen: Int[Tensor, " batch"] | int) -> bool:
        """Drops what is over the budget; says whether anything was.

        Args:
            call, step: the forward that has just attended.
            seen: the real tokens that each row has seen.
        """
        store, moves = step.store, self.eviction.moves
        evicts = step.prefill or self.eviction.every_step
        if evicts and (step.prefill or self._limit is None or moves):
            rows = torch.as_tensor(seen, device=step.query.device).expand(step.query.shape[0])
            self._limit = self.eviction.limit(rows, Seat(*self._seat, self._token_bytes(step)))
            self._slots = int(self._limit.max())
        step = replace(step, limit=self._limit)
        if self._carries:
            with torch.no_grad():
                numbers = self.eviction.carry(step)
            assert numbers is not None
            store.carry(numbers)
        if not evicts or self._limit is None:
            return False
        if step.prefill:
            self._cut_to = store.length
        held, uneven = store.length - store.dead, store.padded and (step.prefill or moves)
        if held <= self._slots and not (uneven and self._row_is_over(store)):
            return False
        if self.eviction.ragged and not step.prefill and store.length < self._cut_to + HEADROOM:
            return False  # what unequal heads give up while decoding is let go together
        with torch.no_grad():  # what is kept is differentiable, which pairs these are is not
            scores = self.eviction.score(step)
        if self.eviction.ragged:
            self._cut_to = store.length
            counts = self.eviction.split(scores.masked_fill(~step.real, float("-inf")), self._limit)
            if bool((counts >= step.real.sum(dim=-1)).all()):
                return False
            store.keep(best(scores, store.positions, counts), ragged=True)
            self._cut_to = store.length
        elif held == self._slots + 1 and not step.prefill and not uneven:
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

    def _token_bytes(self, step: Step) -> int:
        """Bytes that one token of one row takes, as it is, over all layers that share the budget."""
        pair = step.query.shape[-1] + step.value_dim
        return (pair * step.query.element_size() + 4) * step.kv_head * self._seat[1]


def best(
    scores: Float[Tensor, "batch heads key"],
    positions: Int[Tensor, "batch position_heads key"],
    limit: Int[Tensor, " batch"] | Int[Tensor, "batch heads"],
) -> Int[Tensor, "batch heads kept"]:
    """The slots of the best-scored tokens of each row and head, in position order; those that keep fewer begin with
    `PADDING`.

    Of equal scores the later token is kept.
    """
    real = positions >= 0
    count = torch.minimum(limit if limit.ndim == 2 else limit.unsqueeze(-1), real.sum(dim=-1))
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


def overrides(method: Method, name: str) -> bool:
    """Whether a method's class has its own function of that name, not its contract's."""
    while isinstance(method, Allocation):  # which hands on the other method's
        method = method.of
    return not getattr(type(method), name).__module__.startswith("pith.attention.")
