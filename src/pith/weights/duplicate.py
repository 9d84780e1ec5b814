"""A second model that shares every tensor with the first."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn


def duplicate(model: nn.Module) -> Any:
    """The same modules once more, over the same tensors: what is put in place of one model's is not the other's.

    Tensors that were one before, such as tied embeddings, are one after. Hooks stand in both.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for held in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if isinstance(held, Tensor):
                memo[id(held)] = held
    return copy.deepcopy(model, memo)
