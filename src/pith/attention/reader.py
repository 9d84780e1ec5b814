"""What carries a reading out in one layer: it keeps the method's memory, gathers what is read and attends to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pith.attention.attend import attend, softmax_of_logits
from pith.attention.call import Call
from pith.attention.evictor import overrides
from pith.attention.reading import Part, Reading
from pith.attention.step import Step


class Reader:
    """One layer's reading.

    Args:
        reading: the method.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._observes = overrides(reading, "observe")
        self.memory: dict[str, Any] = {}

    def forget(self) -> None:
        """Empties the memory: slots have other numbers now."""
        self.memory.clear()

    def select_rows(self, rows: Int[Tensor, " rows"]) -> None:
        """Makes these rows of the batch the new batch."""
        for name, value in self.memory.items():
            if isinstance(value, Tensor):
                self.memory[name] = value[rows.to(value.device)]

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor in the memory."""
        yield from (value for value in self.memory.values() if isinstance(value, Tensor))

    def read(self, call: Call, step: Step) -> Float[Tensor, "batch query_head query value_dim"] | None:
        """The attention over what the method selects; None where it selects everything."""
        parts = self.reading.select(step)
        if parts is None:
            return None
        read = [self._gathered(step, part) for part in parts]
        if len(parts) == 1 and call.plain and not self._observes and parts[0].index.ndim == 3:
            query, keys, values, mask = read[0]
            return attend(query, keys, values, mask, call.scaling, dropout=call.dropout)
        logits = [_products(query, keys) for query, keys, _, _ in read]
        masks = [_full(mask, product) for (_, _, _, mask), product in zip(read, logits, strict=True)]
        scaling = step.query.shape[-1] ** -0.5 if call.scaling is None else call.scaling
        shares = softmax_of_logits(
            torch.cat(logits, dim=-1), torch.cat(masks, dim=-1), scaling, call.softcap, call.sinks
        )
        weights = torch.split(shares, [product.shape[-1] for product in logits], dim=-1)
        if self._observes:
            self.reading.observe(step, parts, weights)
        out = [_mixed(w.to(values.dtype), values) for w, (_, _, values, _) in zip(weights, read, strict=True)]
        return torch.stack(out).sum(dim=0)

    def _gathered(self, step: Step, part: Part) -> tuple[Tensor, Tensor, Tensor, Bool[Tensor, ...] | None]:
        """Queries, keys, values and mask of a part, [batch, head, ...]; head is kv_head, or query_head.

        Where each query reads its own, keys and values are [batch, head, query, read, dim].
        """
        kv_head, count = step.kv_head, part.index.shape[-1]
        group = max(part.index.shape[1] // kv_head, 1)  # lists of slots for each key-value head
        index = rearrange(part.index.flatten(2), "b (heads group) n -> b heads (group n)", group=group)
        keys, values = step.store.gather(index)
        query = step.query
        if step.rotor is not None and step.raw:
            if part.keys_at is None:
                at = step.rotor.text(step.store.positions_at(index))
            else:
                at = part.keys_at.repeat(1, index.shape[-1] // max(count, 1)).unsqueeze(1)
            keys = step.rotor.rotate(keys, at.expand(len(keys), -1, -1))
        if step.rotor is not None and part.query_at is not None:
            at = step.rotor.text(step.positions[:, :1, step.stored - query.shape[2] :])
            query = step.rotor.rotate(
                step.rotor.unrotate(query, at), part.query_at.unsqueeze(1).expand(len(query), 1, -1)
            )
        lists = (kv_head * group, *part.index.shape[2:])
        keys, values = (x.reshape(len(x), *lists, x.shape[-1]) for x in (keys, values))
        return query, keys, values, self._mask(step, part)

    def _mask(self, step: Step, part: Part) -> Bool[Tensor, "batch heads query read"] | None:
        count = step.query.shape[2]
        slots = part.index if part.index.ndim == 4 else part.index.unsqueeze(2)
        if count == 1 and part.window is None and part.beyond is None and not step.padded:
            return None if bool((part.index >= 0).all()) else slots >= 0
        asking = torch.arange(step.stored - count, step.stored, device=slots.device)[:, None]
        mask = (slots >= 0) & (slots <= asking)
        if part.window is not None:
            mask &= asking - slots < part.window
        if part.beyond is not None:
            mask &= asking - slots >= part.beyond
        if step.padded:
            real = step.store.positions_at(part.index.flatten(2), step.query.shape[1] // step.kv_head) >= 0
            # padding looks at itself, so that no row of the softmax is empty
            mask &= real.reshape(*real.shape[:2], *slots.shape[2:]) | (slots == asking)
        return mask


def _products(query: Tensor, keys: Tensor) -> Float[Tensor, "batch query_head query read"]:
    group = query.shape[1] // keys.shape[1]
    if keys.ndim == 5:
        folded = rearrange(query, "b (kv group) query dim -> b kv query group dim", group=group)
        return rearrange(folded @ keys.transpose(-1, -2), "b kv query group n -> b (kv group) query n")
    folded = rearrange(query, "b (kv group) query dim -> b kv (group query) dim", group=group)
    return rearrange(folded @ keys.transpose(-1, -2), "b kv (group query) n -> b (kv group) query n", group=group)


def _mixed(weights: Tensor, values: Tensor) -> Float[Tensor, "batch query_head query value_dim"]:
    group = weights.shape[1] // values.shape[1]
    if values.ndim == 5:
        folded = rearrange(weights, "b (kv group) query n -> b kv query group n", group=group)
        return rearrange(folded @ values, "b kv query group dim -> b (kv group) query dim")
    folded = rearrange(weights, "b (kv group) query n -> b kv (group query) n", group=group)
    return rearrange(folded @ values, "b kv (group query) dim -> b (kv group) query dim", group=group)


def _full(mask: Tensor | None, products: Tensor) -> Tensor:
    """The mask for every query head."""
    if mask is None:
        return torch.ones_like(products, dtype=torch.bool)
    return mask.repeat_interleave(products.shape[1] // mask.shape[1], dim=1).expand_as(products)
