"""What readings that divide a text into blocks remember in `Step.memory`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention.column import HEADROOM
from pith.attention.step import Step

Rows = Int[Tensor, " batch"]
"""A number for each row, in main memory: asking whether there is anything to do must not wait for the device."""

PIECE = 16
"""Blocks that are made together."""


def padding_before(step: Step) -> Rows:
    """The slots of padding before the first token of each row."""
    known: Rows | None = step.memory.get("front")
    before = step.stored - step.query.shape[2]
    if known is None or step.prefill or bool((known >= before).any()):  # a row has not begun: padding may come yet
        front = torch.zeros(len(step.query), dtype=torch.long)
        if step.padded:
            front = (step.positions[:, 0] < 0).long().cumprod(dim=-1).sum(dim=-1).cpu()
        step.memory["front"] = front
    rows: Rows = step.memory["front"]
    return rows


def latest(step: Step, name: str, width: int, empty: Tensor) -> Float[Tensor, "batch head place *dim"]:
    """Numbers of the latest `width` tokens: what belongs to slot s stands at s modulo the length, in turn.

    It grows as a buffer does, by zeros, and never beyond the width.

    Args:
        empty: [batch, head, 0, ...], what it begins as.
    """
    held: Tensor = step.memory.get(name, empty)
    if held.shape[2] < min(step.stored, width):
        room = 0 if step.prefill else max(HEADROOM, step.stored // 16)
        added = min(step.stored + room, width) - held.shape[2]
        zeros = held.new_zeros(*held.shape[:2], added, *held.shape[3:])
        held = step.memory[name] = torch.cat([held, zeros], dim=2)
    return held


@torch.no_grad()
def summaries(
    step: Step, wanted: Rows, make: Callable[[Int[Tensor, "batch made"]], Float[Tensor, "batch query_head made dim"]]
) -> Float[Tensor, "batch query_head block dim"]:
    """A vector a query head for each of the first `wanted` blocks of each row; those that lack are made, once.

    Args:
        make: the vectors of the blocks with these numbers; of a number that a row does not want, anything.
    """
    memory, device = step.memory, step.query.device
    known: Rows = memory.setdefault("blocks", torch.zeros_like(wanted))
    if "vectors" not in memory:
        memory["vectors"] = step.query.new_empty(*step.query.shape[:2], 0, step.query.shape[3])
    if bool((wanted > known).any()):
        held = F.pad(memory["vectors"], (0, 0, 0, int(wanted.max()) - memory["vectors"].shape[2]))
        most = int((wanted - known).max())
        for start in range(0, most, PIECE):
            ids = known.unsqueeze(1) + torch.arange(start, min(start + PIECE, most))
            row, place = (ids < wanted.unsqueeze(1)).nonzero(as_tuple=True)
            made = make(ids.to(device)).to(held.dtype)
            held[row.to(device), :, ids[row, place].to(device)] = made[row.to(device), :, place.to(device)]
        memory["vectors"], memory["blocks"] = held, torch.maximum(known, wanted)
    found: Tensor = memory["vectors"]
    return found


def slots_of(step: Step, first: Int[Tensor, "batch made"], size: int) -> Int[Tensor, "batch 1 tokens"]:
    """The slots of the blocks that begin at these places of their rows, one after another."""
    front: Tensor = step.memory["front"].to(first.device).unsqueeze(1)
    tokens = (first + front).unsqueeze(-1) + torch.arange(size, device=first.device)
    return tokens.clamp(max=step.stored - 1).flatten(1).unsqueeze(1)
