"""Searching how far the weights of a group are cut before they are quantised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from pith.weights.grid import Grid, grouped, size_of_group

_LOGITS = ("q_", "k_", "query", "key", "qkv", "Wqkv", "c_attn")


def clipped(
    weight: Float[Tensor, "out in"],
    moments: Float[Tensor, "in in"],
    fit: Callable[[Float[Tensor, "out in"]], Grid],
    sides: Literal["together", "apart"],
    steps: int = 10,
    grid: int = 20,
) -> Float[Tensor, "out in"]:
    """The weight with the tails of every group cut off where that makes the group's own part of the output better.

        together: W' = clamp(W, -c m, c m),  m = max |W|                      c = 1 - i / grid, 0 <= i < steps
        apart:    W' = clamp(W, a min, b max)                                 a and b likewise, every pair
        error = sum over tokens of ((Q(W') - W) x)^2, x the group's inputs only

    Args:
        weight: of a linear layer.
        moments: sum of x x^T over the tokens that the layer reads.
        fit: the grid on which a weight is rounded; its groups are those that are cut.
        sides: whether a group is cut as far below 0 as above.
        steps: of each bound that are tried.
        grid: how many of them there would be down to 0.
    """
    weight = weight.float()
    size = size_of_group(fit(weight).group_size, weight.shape[1])
    groups, inner = grouped(weight, size), _diagonal(moments, size)
    high, low = groups.amax(-1, keepdim=True), groups.amin(-1, keepdim=True)
    if sides == "together":
        high = torch.maximum(high, -low)
        low = -high
    best = torch.full_like(high, torch.inf)
    bounds = low, high
    shares = [1 - step / grid for step in range(steps)]
    for above in shares:
        for below in [above] if sides == "together" else shares:
            trial = low * below, high * above
            cut = groups.clamp(*trial)
            flat = cut.flatten(1)[:, : weight.shape[1]]
            rest = grouped(fit(flat).nearest(flat) - weight, size)
            error = torch.einsum("ogi,gij,ogj->og", rest, inner, rest)[..., None]
            better = error < best
            best = torch.where(better, error, best)
            bounds = (torch.where(better, trial[0], bounds[0]), torch.where(better, trial[1], bounds[1]))
    return groups.clamp(*bounds).flatten(1)[:, : weight.shape[1]]


def makes_logits(name: str) -> bool:
    """Whether a layer gives queries or keys, by its name: cutting them would change products of two outputs."""
    last = name.rpartition(".")[2]
    return any(word in last for word in _LOGITS)


def _diagonal(moments: Float[Tensor, "in in"], size: int) -> Float[Tensor, "group member member"]:
    """The blocks of a matrix along its diagonal; the last one filled up with zeros."""
    lacking = -len(moments) % size
    full = rearrange(F.pad(moments, (0, lacking, 0, lacking)), "(a i) (b j) -> a b i j", i=size, j=size)
    return rearrange(full.diagonal(), "i j group -> group i j")
