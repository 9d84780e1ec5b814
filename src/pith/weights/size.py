"""Bytes that a model's weights hold, and will hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pith.weights.bits import packed_bytes
from pith.weights.grid import size_of_group


def weight_bytes(model: nn.Module) -> int:
    """The bytes of every storage that a model's parameters and buffers hold, each once."""
    tensors = (*model.parameters(), *model.buffers())
    return sum({(t.device, t.untyped_storage().data_ptr()): t.untyped_storage().nbytes() for t in tensors}.values())


def bytes_when_packed(model: nn.Module, bits: Mapping[str, int], group_of: Callable[[int, int], int]) -> int:
    """The bytes of the model's weights once linear layers are packed.

    Of a layer [out, in] with codes of b bits in groups of g: out (ceil(in / 8) b + 2 ceil(in / g) s) bytes, where s are
    the bytes of a number in the layer's dtype; with 8 bits out (in + s). A weight that something else holds too, such
    as a tied head's, stays beside its codes.

    Args:
        model: the model as it is.
        bits: of each layer that is to be packed, by name.
        group_of: gives the inputs of a group from a layer's bits and inputs; whole rows are stored as groups of 256
            where that divides them.
    """
    others = {
        parameter.data_ptr()
        for name, module in model.named_modules()
        if name not in bits
        for parameter in module.parameters(recurse=False)
    }
    total = weight_bytes(model)
    for name, width in bits.items():
        weight: Tensor = model.get_submodule(name).weight  # type: ignore[assignment]
        inputs, out = (weight.numel() // weight.shape[0], weight.shape[0])
        if not isinstance(model.get_submodule(name), nn.Linear):
            out, inputs = inputs, out
        total += packed_layer_bytes(out, inputs, width, group_of(width, inputs), weight.dtype)
        if weight.data_ptr() not in others:
            total -= weight.numel() * weight.element_size()
    return total


def packed_layer_bytes(out: int, inputs: int, bits: int, group_size: int, dtype: torch.dtype) -> int:
    """The bytes of one packed layer, without its bias; see `bytes_when_packed`."""
    if bits == 8:
        return out * (inputs + dtype.itemsize)
    size = size_of_group(group_size, inputs)
    if size == inputs and inputs > 256 and inputs % 256 == 0:
        size = 256
    return out * (packed_bytes(inputs, bits) + 2 * -(-inputs // size) * dtype.itemsize)
