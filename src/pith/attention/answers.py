"""What a recipe answers, for one layer, to the questions of the runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pith.attention.eviction import Retention
from pith.attention.evictor import Evictor
from pith.attention.placement import Placement
from pith.attention.reader import Reader
from pith.attention.reading import Reading
from pith.attention.rotary import Rotary
from pith.attention.storage import Storage
from pith.core import Recipe


@dataclass(frozen=True)
class Answers:
    """The methods that act in one layer, each with what carries it out; None where the recipe has none.

    Attributes:
        evictor: which pairs are kept.
        storage: how they are stored.
        reader: which of them a query reads.
        rotary: the layer's rotation, where a method asks for it.
        raw: whether keys are held before their rotation.
        device: where pairs are held; None is where they were made.
    """

    evictor: Evictor | None = None
    storage: Storage | None = None
    reader: Reader | None = None
    rotary: Rotary | None = None
    raw: bool = False
    device: torch.device | None = None


def answers_of(
    model: Any, index: int, recipe: Recipe, seat: tuple[int, int], rotation_of: Callable[[int], Rotary]
) -> Answers:
    """The recipe's methods as they act in one layer; `rotation_of` gives a layer's rotation where a method needs it."""
    retention, storage, reading = (recipe.answer(c.question) for c in (Retention, Storage, Reading))
    evictor = reader = rotary = None
    raw = turns = False
    if isinstance(retention, Retention):
        raw, turns = retention.raw, retention.renumbers or retention.rotates
    if isinstance(reading, Reading):
        raw, reader = raw or reading.raw, Reader(reading)
    if raw or turns:
        rotary = rotation_of(index)
    if isinstance(retention, Retention):
        placed = rotary is not None and retention.renumbers and not raw
        evictor = Evictor(retention, seat, Placement(rotary) if rotary is not None and placed else None)
    return Answers(
        evictor=evictor,
        storage=storage if isinstance(storage, Storage) else None,
        reader=reader,
        rotary=rotary,
        raw=raw,
        device=_away(model) if isinstance(reading, Reading) and reading.offload == "cpu" else None,
    )


def _away(model: Any) -> torch.device | None:
    """Main memory, where the model is elsewhere."""
    return None if model.device.type == "cpu" else torch.device("cpu")
