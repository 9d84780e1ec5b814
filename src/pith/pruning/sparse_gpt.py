"""SparseGPT: pruning column by column, the columns that follow making up for each weight that went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pith.core import ModelError, Paper, param
from pith.weights import Calibration, block_linears, fuse_experts, set_weight, split_experts, walk, weight_of
from pith.weights.columns import BLOCK, by_columns, column_blocks, without_dead
from pith.weights.hessian import inverse_factor, moments
from pith.weights.sparsity import Sparsifier, least_of_groups, least_of_rows, parse_pattern


@dataclass(frozen=True, kw_only=True)
class SparseGPT(Sparsifier):
    """Make the weights zero whose loss the others can make up for best, and let them.

        H = 2 / N sum_t x_t x_t^T,    U^T U = (H + damping mean(diag H) I)^-1, U upper
        pruned = the least w_ij^2 / U_jj^2 of every 128 columns, or of every 4 or 8 inputs of a row the 2 or 4 least
        q_j = 0 where pruned, else w_j,    e = (w_j - q_j) / U_jj,    w_k = w_k - e U_jk for every k > j   (algorithm 1)

    Column by column; which weights of a block of columns go is said when it is reached, after all columns before it
    were made up for. It reads texts, block by block: each block's inputs come from the pruned blocks before it. The
    linear layers of the blocks are pruned, experts' too; embeddings, the head, biases and norms are not. The zeros are
    stored: bytes and time stay as they are. A quantizer after it moves the zeros.

    Deviates: of every block exactly the share is pruned, where the authors' code takes one more weight and those that
    tie with it. Their pruning and rounding in one pass is not here. Where the Hessian cannot be inverted, ten times the
    damping is tried. A layer that no token reached is pruned by the size of its weights, and named.
    """

    paper: ClassVar[Paper] = Paper(
        "2301.00774",
        "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
        "Elias Frantar, Dan Alistarh",
        2023,
        "IST-DASLab/sparsegpt",
    )

    damping: float = param(0.01, "share of the mean of the Hessian's diagonal that is added to it", ge=0)

    def change(self, model: Any, calibration: Calibration) -> None:
        """Prunes block by block."""
        split_experts(model, self.skip)
        chosen = block_linears(model, self.skip)
        unreached: list[str] = []
        for stage in walk(model, calibration):
            inside = {name: layer for name, layer in chosen.items() if name.startswith(f"{stage.name}.")}
            read = moments(stage, inside)
            for name, linear in inside.items():
                one = read.pop(name)
                hessian = one.hessian(sum(map(len, stage.inputs)))
                if not one.tokens:
                    unreached.append(name)
                    hessian = torch.eye(len(hessian), device=hessian.device)
                try:
                    set_weight(linear, self.pruned(weight_of(linear), hessian))
                except ModelError as error:
                    raise ModelError(f"{self.name}: {name}: {error}") from None
        fuse_experts(model)
        self.warn_unreached(unreached, "pruned by the size of the weights alone")

    def pruned(self, weight: Float[Tensor, "out in"], hessian: Float[Tensor, "in in"]) -> Float[Tensor, "out in"]:
        """The weight with zeros, for the Hessian of what its layer gives."""
        groups, work = parse_pattern(self.pattern), weight.float()
        work, hessian = without_dead(work, hessian)
        factor = inverse_factor(hessian, self.damping)
        worth = factor.diagonal().square()
        size = groups[1] if groups else BLOCK
        gone = torch.zeros_like(work, dtype=torch.bool)

        def choose(index: int, left: Float[Tensor, "out left"]) -> Float[Tensor, " out"]:
            if index % size == 0:
                end = min(index + size, work.shape[1])
                scores = left[:, : end - index].square() / worth[index:end]
                gone[:, index:end] = (
                    least_of_groups(scores, *groups)
                    if groups
                    else least_of_rows(scores.reshape(1, -1), int(scores.numel() * self.sparsity)).view_as(scores)
                )
            return left[:, 0].masked_fill(gone[:, index], 0)

        return by_columns(work, factor, column_blocks(work.shape[1]), choose)
