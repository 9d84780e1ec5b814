"""Attention and MLPs whose widths are not those of the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from pith.weights.standin import StandIn

_SIZES = ("intermediate_size", "num_heads", "num_attention_heads", "num_key_value_heads")
"""Under these names modules keep how wide they are."""


class Narrow(StandIn):
    """Mixed into the class of a module of the model: it computes as it did, and is saved with its own widths."""

    kind: ClassVar[str] = "narrow"

    def plan(self) -> dict[str, Any]:
        """See `StandIn`."""
        return {
            "tensors": {name: list(parameter.shape) for name, parameter in plain_parameters(self)},
            "sizes": {name: getattr(self, name) for name in _SIZES if isinstance(getattr(self, name, None), int)},
        }

    @classmethod
    def build(cls, plan: Mapping[str, Any], replaced: nn.Module, dtype: torch.dtype) -> StandIn:
        """See `StandIn`."""
        shapes = plan["tensors"]
        for name, parameter in dict(plain_parameters(replaced)).items():
            owner, _, last = name.rpartition(".")
            if name not in shapes and last == "bias":
                replaced.get_submodule(owner).register_parameter(last, None)
            elif name in shapes and list(parameter.shape) == shapes[name]:
                shapes = {key: shape for key, shape in shapes.items() if key != name}
        for name, shape in shapes.items():
            owner, _, last = name.rpartition(".")
            holder = replaced.get_submodule(owner)
            holder._parameters.pop(last, None)
            holder.register_parameter(last, nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False))
        for module in replaced.modules():
            if isinstance(module, nn.Linear):
                module.out_features, module.in_features = module.weight.shape
            elif isinstance(module, Conv1D):
                module.nx, module.nf = module.weight.shape
        for name, size in plan["sizes"].items():
            setattr(replaced, name, size)
        return narrow(replaced)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle and copy by the plain class, since no module holds this one under a name."""
        return _blank, (_plain_class(type(self)),), vars(self)


def narrow(module: nn.Module) -> StandIn:
    """The module itself, from now on a stand-in."""
    if not isinstance(module, Narrow):
        module.__class__ = _narrow_class(type(module))  # type: ignore[arg-type]
    return module  # type: ignore[return-value]


def widen(module: nn.Module) -> None:
    """Gives a narrow module the class that it had."""
    module.__class__ = _plain_class(type(module))


def plain_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters by name without those of stand-ins in the module, which describe themselves."""
    inner = tuple(f"{name}." for name, one in module.named_modules() if name and isinstance(one, StandIn))
    for name, parameter in module.named_parameters():
        if not name.startswith(inner):
            yield name, parameter


def _plain_class(kind: Any) -> Any:
    return next(base for base in kind.__mro__ if not issubclass(base, StandIn))


def _blank(plain: Any) -> Any:
    kind: Any = _narrow_class(plain)
    return kind.__new__(kind)


@cache  # one class for each, however many modules
def _narrow_class(plain: type[nn.Module]) -> type[nn.Module]:
    """The class with the name of the plain one, for whoever reads it."""
    return type(plain.__name__, (Narrow, plain), {"__module__": plain.__module__})
