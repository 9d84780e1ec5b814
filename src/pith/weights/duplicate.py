"""A second model that shares every tensor with the first."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_ALIGNMENT = 64
"""The bytes at a multiple of which PyTorch allocates a tensor on a processor."""


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


def aligned(tensor: Tensor) -> Tensor:
    """Return the tensor if it is contiguous and begins at a multiple of 64 bytes, else a copy that is.

    The kernels of a processor choose their path by strides and addresses, and the paths round differently.
    """
    if tensor.is_contiguous() and tensor.data_ptr() % _ALIGNMENT == 0:
        return tensor
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def tensors_of(part: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a part of a model, by name."""
    return {**dict(part.named_parameters()), **dict(part.named_buffers())}


def settle(part: nn.Module, before: Mapping[str, Tensor]) -> None:
    """Place the tensors of a part the same way whether it was changed now or read back from a file.

    A tensor that holds the bytes of the one of its name in `before` is replaced by that one. Every other becomes
    contiguous and aligned (see `aligned`). So what the part computes does not depend on where its tensors come from.

    Args:
        part: the part of the model, after the change.
        before: its tensors before the change, as `tensors_of` gives them.
    """
    placed: dict[int, Tensor] = {}
    for prefix, module in part.named_modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is None:
                    continue
                if id(tensor) not in placed:
                    old = before.get(f"{prefix}.{name}" if prefix else name)
                    placed[id(tensor)] = old if old is not None and _same_bytes(old, tensor) else _aligned_like(tensor)
                if placed[id(tensor)] is not tensor:
                    held[name] = placed[id(tensor)]


def _aligned_like(tensor: Tensor) -> Tensor:
    new = aligned(tensor)
    if new is tensor or not isinstance(tensor, nn.Parameter):
        return new
    return nn.Parameter(new, requires_grad=tensor.requires_grad)


def _same_bytes(one: Tensor, other: Tensor) -> bool:
    if one is other:
        return True
    if one.shape != other.shape or one.dtype != other.dtype or one.device != other.device:
        return False
    if isinstance(one, nn.Parameter) != isinstance(other, nn.Parameter):
        return False
    return torch.equal(*(tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)))


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
