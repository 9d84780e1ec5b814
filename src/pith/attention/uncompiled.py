"""Keeping `torch.compile` out of Pith's functions: the compiled graph breaks there, and they run as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

REASON = "Pith's attention runtime runs uncompiled"

Function = TypeVar("Function", bound=Callable[..., Any])


def uncompiled(function: Function) -> Function:
    """Decorate a function that a compiled forward calls; it costs about 3 microseconds a call."""
    return cast(Function, torch.compiler.disable(function, reason=REASON))  # type: ignore[no-untyped-call]


def original(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that `torch.compile` was given; any other function is returned unchanged."""
    while getattr(forward, "_torchdynamo_wrapper_id", None) == id(forward):
        forward = vars(forward)["_torchdynamo_orig_callable"]
    return forward


def is_refused_graph_break(error: BaseException) -> bool:
    """Return whether `torch.compile(..., fullgraph=True)` raised this because it met a function of Pith."""
    kind: Any = type(error)
    return kind.__module__.startswith("torch._dynamo") and REASON in str(error)
