"""Whether plain Transformers would build a model again from its configuration."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.initialization import no_init_weights

from pith.weights.blocks import blocks
from pith.weights.narrow import Narrow
from pith.weights.standin import StandIn

_OF_NO_WEIGHT = ("training", "gradient_checkpointing", "layer_idx")


def difference(model: Any, widths: bool = True) -> str | None:
    """How a block that plain Transformers builds from the configuration differs from the model's; None if none does.

    Args:
        model: stand-ins in it are passed over.
        widths: whether narrow modules are taken for the plain ones that they might be, and not passed over too.
    """
    config = model.config
    try:
        with torch.device("meta"), no_init_weights():
            twin = type(model)(type(config).from_dict(config.to_dict()))
    except Exception as error:  # each architecture has its own ways to refuse a configuration
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"the configuration is refused: {lines[-1].strip()}"
    for index, (ours, plain) in enumerate(zip(blocks(model), blocks(twin), strict=True)):
        if found := _difference(ours, plain, widths):
            return f"block {index} {found}"
    return None


def _difference(ours: nn.Module, plain: nn.Module, widths: bool) -> str | None:
    modules = dict(plain.named_modules())
    passed: tuple[str, ...] = ()
    for name, module in ours.named_modules():
        if name.startswith(passed):
            continue
        if isinstance(module, StandIn) and not (widths and isinstance(module, Narrow)):
            passed += (f"{name}.",)
            continue
        other = modules.get(name)
        if other is None or not isinstance(module, type(other)):
            return f"has {name or 'a block'} as a {type(module).__name__}, not a {type(other).__name__}"
        for what, value in _facts(module).items():
            if value != (would := _facts(other).get(what)):
                return f"has {f'{name}.{what}'.lstrip('.')} of {value}, not {would}"
        if missing := _facts(other).keys() - _facts(module).keys():
            return f"has no {f'{name}.{min(missing)}'.lstrip('.')}"
    return None


def _facts(module: nn.Module) -> dict[str, Any]:
    """The shapes of a module's own tensors, and its numbers and words."""
    tensors = {key: tuple(one.shape) for key, one in module._parameters.items() if one is not None}
    words = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, int | float | str | bool) and not key.startswith("_") and key not in _OF_NO_WEIGHT
    }
    return {**words, **tensors}
