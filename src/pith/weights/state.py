"""The tensors of a part of a model together with the stand-ins in it, to keep and to put back."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from pith.weights.standin import layout, rebuild

_LAYOUT = "layout"


def state(model: Any, name: str) -> dict[str, Tensor]:
    """The tensors of one module of the model, and under "layout" which stand-ins are in it."""
    part = model.get_submodule(name)
    text = json.dumps(layout(part))
    return {**part.state_dict(), _LAYOUT: torch.tensor(list(text.encode()), dtype=torch.uint8)}


def load_state(model: Any, name: str, kept: dict[str, Tensor]) -> None:
    """Puts back what `state` gave: the model's module becomes what it was then."""
    tensors = dict(kept)
    parts = json.loads(bytes(tensors.pop(_LAYOUT).tolist()))
    part = model.get_submodule(name)
    rebuild(part, parts, model.dtype)
    part.load_state_dict(tensors, strict=True, assign=True)
