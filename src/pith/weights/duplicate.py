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


def lay_out(model: nn.Module) -> None:
    """Gives the model a copy of every tensor that does not lie in its own order, as files will hold it.

    Products differ in their last bits with the order in which a matrix lies. Tensors that are one stay one.
    """
    laid: dict[int, Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and not tensor.is_contiguous():
                    if id(tensor) not in laid:
                        copy_of = tensor.detach().contiguous()
                        is_parameter = isinstance(tensor, nn.Parameter)
                        laid[id(tensor)] = nn.Parameter(copy_of, tensor.requires_grad) if is_parameter else copy_of
                    held[name] = laid[id(tensor)]  # type: ignore[assignment]
