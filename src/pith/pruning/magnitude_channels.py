"""Structured magnitude pruning: channels and heads with small weights are taken out; the structured baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pith.core import Paper, param
from pith.weights import Calibration, Pruner, blocks, heads, keep_channels, keep_heads, parts, settle, weight_of


@dataclass(frozen=True, kw_only=True)
class MagnitudeChannels(Pruner):
    """Take out the MLP channels and the key-value heads with the smallest weights, as many in every block.

        s = sum |w| over all weights of a channel: its rows of gate and up and its column of down      (section 3.1)
        s = sum |w| over all weights of a key-value head: its rows of k and v, those of its queries in q, columns of o

    The baseline that every other method of structured pruning has to beat. All blocks get one width, so that the result
    is a plain Transformers model wherever the configuration can say that width. Of the heads the nearest number to the
    share goes, at least one stays; of the channels as many as bring the block's share of weights to the one asked for.

    Deviates: the paper prunes filters of convolutions by the filter's own weights, and trains again; here the weights
    that read a channel count too, and nothing is trained.
    """

    paper: ClassVar[Paper] = Paper(
        "1608.08710",
        "Pruning Filters for Efficient ConvNets",
        "Hao Li, Asim Kadav, Igor Durdanovic, Hanan Samet, Hans Peter Graf",
        2016,
    )
    calibrated: ClassVar[bool] = False

    sparsity: float = param(
        0.2, "share of a block's weights in attention and MLP that goes", ge=0, le=0.95, sweep=(0.5, 0.1)
    )
    heads: bool = param(True, "whether key-value heads go, each with its queries, or channels of the MLP only")

    def change(self, model: Any, calibration: Calibration) -> None:
        """Prunes block by block."""
        layers = blocks(model)
        for index, block in enumerate(layers):
            calibration.told(index, len(layers))
            channels, key_heads = channel_sizes(block), head_sizes(model, block)
            gone = min(round(self.sparsity * len(key_heads)), len(key_heads) - 1) if self.heads else 0
            per_head, per_channel = _weights(block, len(key_heads), len(channels))
            wanted = self.sparsity * (per_head * len(key_heads) + per_channel * len(channels)) - gone * per_head
            fewer = min(max(round(wanted / per_channel), 0), len(channels) - 1)
            if fewer:
                keep_channels(block, _largest(channels, len(channels) - fewer))
            if gone:
                keep_heads(model, index, _largest(key_heads, len(key_heads) - gone))
        settle(model)
        calibration.told(len(layers), len(layers))


def channel_sizes(block: nn.Module) -> Float[Tensor, " channel"]:
    """The summed size of each MLP channel's weights."""
    found = parts(block)
    rows = [_size(one) for one in (found.gate, found.up) if one is not None]
    return _size(found.down, dim=0) + torch.stack(rows).sum(dim=0)


def head_sizes(model: Any, block: nn.Module) -> Float[Tensor, " kv_head"]:
    """The summed size of the weights of each key-value head with the query heads that read it."""
    found = parts(block)
    count = weight_of(found.k).shape[0] // heads(model)[2]
    rows = [_size(found.q), _size(found.k), _size(found.v), _size(found.o, dim=0)]
    return torch.stack([one.view(count, -1).sum(dim=1) for one in rows]).sum(dim=0)


def _size(linear: nn.Module, dim: int = 1) -> Tensor:
    return weight_of(linear).float().abs().sum(dim=dim)


def _weights(block: nn.Module, key_heads: int, channels: int) -> tuple[float, float]:
    """The weights of a key-value head with its queries, and of a channel."""
    found = parts(block)
    attention = sum(weight_of(one).numel() for one in (found.q, found.k, found.v, found.o))
    mlp = sum(weight_of(one).numel() for one in (found.gate, found.up, found.down) if one is not None)
    return attention / key_heads, mlp / channels


def _largest(sizes: Float[Tensor, " n"], count: int) -> Tensor:
    """The indices of the largest, in their order."""
    return sizes.argsort(descending=True, stable=True)[:count].sort().values
