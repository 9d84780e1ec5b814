"""What a recipe answers, for one layer, to the questions of the runtime."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pith.attention.evictor import Evictor
from pith.attention.reader import Reader
from pith.attention.rotary import Rotary
from pith.attention.storage import Storage


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
