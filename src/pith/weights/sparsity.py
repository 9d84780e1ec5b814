"""Which weights of a matrix become zero: a share of them, or so many of every few neighbours."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pith.core import ModelError, ParameterError, param
from pith.weights.compressor import Pruner

Pattern = Literal["unstructured", "2:4", "4:8"]
"""Anywhere, or so many zeros in every group of so many inputs of a row."""


def parse_pattern(pattern: str) -> tuple[int, int] | None:
    """How many weights become zero, of how many neighbours; None where they may stand anywhere."""
    if pattern == "unstructured":
        return None
    pruned, of = pattern.split(":")
    return int(pruned), int(of)


def least_of_rows(scores: Float[Tensor, "row column"], pruned: int | Int[Tensor, " row"]) -> Bool[Tensor, "row column"]:
    """Of every row the so many entries with the least scores; of equals the first."""
    order = scores.argsort(dim=-1, stable=True)
    ranks = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    counts = torch.as_tensor(pruned, device=scores.device).view(-1, 1)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, ranks < counts)


def least_of_groups(scores: Float[Tensor, "row column"], pruned: int, of: int) -> Bool[Tensor, "row column"]:
    """Of every `of` neighbouring entries of a row the `pruned` ones with the least scores; of equals the first.

    Raises:
        ModelError: the row is no multiple of `of`.
    """
    rows, columns = scores.shape
    if columns % of:
        raise ModelError(f"a layer of {columns} inputs has no groups of {of}; allowed are multiples of {of}")
    return least_of_rows(scores.reshape(-1, of), pruned).view(rows, columns)


@dataclass(frozen=True, kw_only=True)
class Sparsifier(Pruner, ABC):
    """A pruner that makes single weights zero; the matrices keep their shapes, and bytes and time stay as they are."""

    sparsity: float = param(0.5, "share of a layer's weights that become zero", ge=0, le=1, sweep=(0.7, 0.1))
    pattern: Pattern = param("unstructured", "where the zeros stand: anywhere, or 2 of every 4 inputs, or 4 of 8")
    skip: str | tuple[str, ...] = param("", "name patterns of layers that stay as they are")

    def __post_init__(self) -> None:
        super().__post_init__()
        groups = parse_pattern(self.pattern)
        if groups and self.sparsity != groups[0] / groups[1]:
            raise ParameterError(
                f"{self.name}: sparsity={self.sparsity} is not allowed with pattern={self.pattern!r}; allowed is "
                f"{groups[0] / groups[1]}"
            )

    def of_rows(self, scores: Float[Tensor, "out in"]) -> Bool[Tensor, "out in"]:
        """The weights with the least scores of every row, or of every group where there is a pattern."""
        if groups := parse_pattern(self.pattern):
            return least_of_groups(scores, *groups)
        return least_of_rows(scores, int(scores.shape[1] * self.sparsity))

    def of_layer(self, scores: Float[Tensor, "out in"]) -> Bool[Tensor, "out in"]:
        """The weights with the least scores of the layer, or of every group where there is a pattern."""
        if groups := parse_pattern(self.pattern):
            return least_of_groups(scores, *groups)
        return least_of_rows(scores.reshape(1, -1), int(scores.numel() * self.sparsity)).view_as(scores)
