"""The linear layers of a model, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from pith.core import ModelError, fits
from pith.weights.blocks import block_name, blocks


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a plain linear layer, stored either way round."""
    return type(module) in (nn.Linear, Conv1D)


def linears(model: Any, skip: str | Iterable[str] = ()) -> Iterator[tuple[str, nn.Module]]:
    """The plain linear layers by name, in the order of the model, without those that a pattern of `skip` fits."""
    patterns = (skip,) if isinstance(skip, str) else tuple(skip)
    for name, module in model.named_modules():
        if is_linear(module) and not any(fits(name, pattern) for pattern in patterns if pattern):
            yield name, module


def block_linears(model: Any, skip: str | Iterable[str] = ()) -> dict[str, nn.Module]:
    """The plain linear layers of the decoder blocks, by their name in the model.

    Raises:
        ModelError: the blocks cannot be found, or have no plain linear layer that is not skipped.
    """
    count = len(blocks(model))
    begin = tuple(f"{block_name(model, index)}." for index in range(count))
    found = {name: module for name, module in linears(model, skip) if name.startswith(begin)}
    if not found:
        raise ModelError(f"the {count} blocks of {type(model).__name__} have no plain linear layer to change")
    return found


def weight_of(linear: nn.Module) -> Float[Tensor, "out in"]:
    """The weight as [out, in], whichever way round the layer stores it: a view."""
    weight: Tensor = linear.weight  # type: ignore[assignment]
    return weight.detach().T if isinstance(linear, Conv1D) else weight.detach()


def set_weight(linear: nn.Module, weight: Float[Tensor, "out in"]) -> None:
    """Gives a linear layer a new weight of any width, in the dtype that it had."""
    old: Tensor = linear.weight  # type: ignore[assignment]
    new = (weight.T if isinstance(linear, Conv1D) else weight).to(old.dtype).contiguous()
    if new.untyped_storage().nbytes() > new.nbytes:  # a part of a tensor would keep all of it in memory
        new = new.clone()
    linear.weight = nn.Parameter(new, requires_grad=old.requires_grad)
    if isinstance(linear, nn.Linear):
        linear.out_features, linear.in_features = weight.shape
    else:
        linear.nf, linear.nx = weight.shape  # type: ignore[assignment]


def set_bias(linear: nn.Module, bias: Float[Tensor, out] | None) -> None:
    """Gives a linear layer a new bias, in the dtype of its weight, or takes it away."""
    weight: Tensor = linear.weight  # type: ignore[assignment]
    new = None if bias is None else nn.Parameter(bias.detach().to(weight.dtype).contiguous().clone())
    if "bias" in linear._parameters:
        linear._parameters["bias"] = new
    else:
        linear.register_parameter("bias", new)
