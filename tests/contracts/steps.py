"""A step as a method sees it, made of tensors."""

from __future__ import annotations

from typing import Any

import torch

from pith.attention import Step, Store


def step(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
    **more: Any,
) -> Step:
    """One layer of one prompt; without positions every slot holds a token, and values are the keys."""
    store = Store()
    span = torch.arange(keys.shape[2], dtype=torch.int32).expand(len(keys), 1, -1)
    store.append(keys, keys if values is None else values, span if positions is None else positions, decoding=False)
    store.padded = bool((store.positions < 0).any())
    return Step(**{"query": query, "store": store, "layer": 0, "depth": 1, "prefill": True} | more)
