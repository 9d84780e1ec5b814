"""The arguments of a forward by name."""

from __future__ import annotations

import inspect
from typing import Any


def argument_names(model: Any) -> list[str]:
    """Return the names of the arguments of a model's forward, in order; one that takes any gives those of its class."""
    found = inspect.signature(model.forward).parameters
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in found.values()):
        found = inspect.signature(type(model).forward.__get__(model)).parameters
    return [name for name, parameter in found.items() if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
