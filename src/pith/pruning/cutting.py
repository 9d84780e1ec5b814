"""Taking out what gives nothing, or is read by nobody: no output changes."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from pith.core import ModelError
from pith.weights import blocks, heads, keep_channels, keep_heads, parts, settle, weight_of


def cut_dead(model: Any) -> None:
    """Takes dead channels out of MLPs and dead key-value heads out of attention, each block to its own width.

    Blocks that are not of the Llama kind keep their zeros, and so does attention whose heads cannot be told apart.
    """
    for index, block in enumerate(blocks(model)):
        try:
            channels, key_heads = dead_channels(block), dead_heads(model, block)
        except ModelError:
            continue
        if channels.any():
            keep_channels(block, (~channels).nonzero().flatten())
        if key_heads.any():
            try:
                keep_heads(model, index, (~key_heads).nonzero().flatten())
            except ModelError:
                continue
    settle(model)


def dead_channels(block: nn.Module) -> Bool[Tensor, " channel"]:
    """The MLP's channels that are always zero, or that nothing reads."""
    found = parts(block)
    dead = ~weight_of(found.down).any(dim=0)
    if found.gate is not None:
        dead = dead | _silent(found.up)
    first = found.up if found.gate is None else found.gate
    act = getattr(found.mlp, "act_fn", None)
    if act is not None and not act(torch.zeros(1)).any():
        dead = dead | _silent(first)
    return dead


def dead_heads(model: Any, block: nn.Module) -> Bool[Tensor, " kv_head"]:
    """The key-value heads whose values are always zero, or are read by no query head that anything reads."""
    found = parts(block)
    now = weight_of(found.k).shape[0] // heads(model)[2]
    silent = torch.unflatten(_silent(found.v), 0, (now, -1)).all(dim=1)
    unread = torch.unflatten(~weight_of(found.o).any(dim=0), 0, (now, -1)).all(dim=1)
    return silent | unread


def _silent(linear: nn.Module) -> Bool[Tensor, " out"]:
    """The outputs that are always zero."""
    silent = ~weight_of(linear).any(dim=1)
    bias: Tensor | None = linear.bias  # type: ignore[assignment]
    return silent if bias is None else silent & (bias.detach() == 0)
