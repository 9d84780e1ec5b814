"""Finding the Transformers model inside a wrapper: `torch.compile(model)`, PEFT, DistributedDataParallel and others."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from pith.core import ModelError


def unwrap(model: Any) -> Any:
    """Return the one Transformers model that a module is or holds; anything that is not a module is returned unchanged.

    Raises:
        ModelError: the module holds no Transformers model or several, or runs copies of it in threads.
    """
    if isinstance(model, PreTrainedModel) or not isinstance(model, nn.Module):
        return model
    name = type(model).__name__
    if isinstance(model, nn.DataParallel):
        raise ModelError(f"{name} runs copies of the model in threads, which Pith cannot follow; pass {name}.module")
    found = _outermost(model)
    if not found:
        raise ModelError(f"{name} is no Transformers model and holds none; pass a loaded Transformers model")
    if len(found) > 1:
        kinds = ", ".join(type(one).__name__ for one in found[:4])
        raise ModelError(f"{name} holds {len(found)} Transformers models ({kinds}); pass the one that generates")
    return found[0]


def _outermost(module: nn.Module) -> list[PreTrainedModel]:
    """The Transformers models in a module that are in no other Transformers model."""
    found: dict[int, PreTrainedModel] = {}
    waiting = [module]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, PreTrainedModel):
            found[id(one)] = one
        else:
            waiting.extend(one.children())
    return list(found.values())
