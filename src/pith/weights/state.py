"""The tensors of a part of a model together with the stand-ins in it, to keep and to put back."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from pith.weights.linears import linears, set_bias, set_weight
from pith.weights.standin import layout, rebuild

_LAYOUT = "layout"


def state(model: Any, name: str) -> dict[str, Tensor]:
    """The tensors of one module of the model, and under "layout" which stand-ins are in it."""
    part = model.get_submodule(name)
    text = json.dumps(layout(part))
    return {**part.state_dict(), _LAYOUT: torch.tensor(list(text.encode()), dtype=torch.uint8)}


def load_state(model: Any, name: str, kept: dict[str, Tensor]) -> None:
    """Puts back what `state` gave: the model's module becomes what it was then."""
    tensors = {key: tensor.to(model.device) for key, tensor in kept.items() if key != _LAYOUT}
    parts = json.loads(bytes(kept[_LAYOUT].tolist()))
    rebuild(model, [{**part, "name": f"{name}.{part['name']}".rstrip(".")} for part in parts], model.dtype)
    part = model.get_submodule(name)
    for inner, linear in linears(part):
        dot = f"{inner}." if inner else ""
        if (weight := tensors.get(f"{dot}weight")) is not None and weight.shape != linear.weight.shape:
            set_weight(linear, weight.T if isinstance(linear, Conv1D) else weight)
        if ("bias" in linear._parameters and linear.bias is not None) != (f"{dot}bias" in tensors):
            set_bias(linear, tensors.get(f"{dot}bias"))
    part.load_state_dict(tensors, strict=True, assign=True)
