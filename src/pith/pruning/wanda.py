"""Wanda: weights are pruned by their size times the norm of what they are multiplied with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pith.core import Paper, param
from pith.weights import Calibration, Stage, block_linears, fuse_experts, set_weight, split_experts, walk, weight_of
from pith.weights.sparsity import Sparsifier, least_of_rows, parse_pattern

TOLERANCE = 0.001
"""How far `alpha`'s share may be from the one asked for, and how fine its search gets."""


@dataclass(frozen=True, kw_only=True)
class Wanda(Sparsifier):
    """Make the weights zero that contribute least to their output: small ones, and those of inputs that stay small.

        S_ij   = |W_ij| ||X_j||_2                                                                     (equation 1)
        pruned = of every row the floor(sparsity I) least S_ij, or of every 4 or 8 inputs the 2 or 4 least
        variant: of every row those whose sorted and summed scores stay within alpha of the row's sum   (appendix)

    Weights are compared within a row, that is for each output, and what is left stays as it is. Blocks are pruned one
    after another, and each is measured on what the pruned ones before it give. The linear layers of the blocks are
    pruned, experts' too; embeddings, the head, biases and norms are not. The zeros are stored: bytes and time stay as
    they are. A layer that no token of the calibration reached is pruned by |W_ij| alone.

    Deviates: of equal scores the first inputs are pruned with a pattern too, where the code leaves it to the sort. The
    search for alpha is the code's: from 0.4 by bisection within 0 and 0.8, until the share is within 0.001.
    """

    paper: ClassVar[Paper] = Paper(
        "2306.11695",
        "A Simple and Effective Pruning Approach for Large Language Models",
        "Mingjie Sun, Zhuang Liu, Anna Bair, J. Zico Kolter",
        2023,
        "locuslab/wanda",
    )

    variant: bool = param(False, "whether each row loses what stays within one share of its sum of scores")

    def change(self, model: Any, calibration: Calibration) -> None:
        """Prunes block by block."""
        split_experts(model, self.skip)
        chosen = block_linears(model, self.skip)
        unreached: list[str] = []
        for stage in walk(model, calibration):
            inside = {name: layer for name, layer in chosen.items() if name.startswith(f"{stage.name}.")}
            norms = _norms(stage, inside)
            unreached += [name for name in inside if name not in norms]
            for name, linear in inside.items():
                weight = weight_of(linear)
                scores = weight.float().abs() * norms.get(name, torch.ones(()).to(weight.device))
                set_weight(linear, weight.masked_fill(self.pruned(scores), 0))
        fuse_experts(model)
        self.warn_unreached(unreached, "pruned by the size of the weights alone")

    def pruned(self, scores: Float[Tensor, "out in"]) -> Bool[Tensor, "out in"]:
        """Which weights become zero."""
        if parse_pattern(self.pattern) or not self.variant:
            return self.of_rows(scores)
        return _within_alpha(scores, self.sparsity)


def _norms(stage: Stage, inside: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The norm of every input of the layers that a token reached, over all tokens."""
    sums: dict[str, Tensor] = {}

    def reader(name: str) -> Any:
        def read(rows: Float[Tensor, "token in"]) -> None:
            if len(rows):
                sums[name] = sums.get(name, 0) + rows.float().square().sum(dim=0)

        return read

    stage.observe({layer: reader(name) for name, layer in inside.items()})
    return {name: total.sqrt() for name, total in sums.items()}


def _within_alpha(scores: Float[Tensor, "out in"], sparsity: float) -> Bool[Tensor, "out in"]:
    """Of every row the least scores whose sum is within alpha of the row's, for the alpha that gives the share."""
    summed = scores.sort(dim=-1, stable=True).values.cumsum(dim=-1)
    low, alpha, high = 0.0, 0.4, 0.8
    while True:
        counts = (summed <= scores.sum(dim=-1, keepdim=True) * alpha).sum(dim=-1)
        share = float(counts.sum()) / scores.numel()
        if abs(share - sparsity) <= TOLERANCE or high - low < TOLERANCE:
            return least_of_rows(scores, counts)
        low, high = (low, alpha) if share > sparsity else (alpha, high)
        alpha = (low + high) / 2
