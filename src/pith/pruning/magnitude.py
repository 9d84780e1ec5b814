"""Magnitude pruning: the smallest weights become zero; the baseline of all pruning of single weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pith.core import Paper
from pith.weights import Calibration, block_linears, fuse_experts, set_weight, split_experts, weight_of
from pith.weights.sparsity import Sparsifier


@dataclass(frozen=True, kw_only=True)
class Magnitude(Sparsifier):
    """Make the smallest weights of every layer zero; nothing is read.

        pruned = the floor(sparsity O I) least |W_ij| of a layer                                       (section 3)
        pruned = of every group of 4 or 8 inputs of a row the 2 or 4 least |W_ij|                      (with a pattern)

    The baseline that every other method of the family has to beat, in any paper's tables. The linear layers of the
    blocks are pruned, experts' too; embeddings, the head, biases and norms are not. The zeros are stored: bytes and
    time stay as they are.

    Deviates: the paper trains again after pruning and sets each layer's threshold by hand, as a multiple of its
    standard deviation; here, as in later papers' tables, every layer loses one share and nothing is trained. Those
    papers' code prunes all weights that are not above the one of rank `sparsity`, one more than asked; here the count
    is exact.
    """

    paper: ClassVar[Paper] = Paper(
        "1506.02626",
        "Learning both Weights and Connections for Efficient Neural Networks",
        "Song Han, Jeff Pool, John Tran, William J. Dally",
        2015,
    )
    calibrated: ClassVar[bool] = False

    def change(self, model: Any, calibration: Calibration) -> None:
        """Prunes layer by layer."""
        split_experts(model, self.skip)
        chosen = block_linears(model, self.skip)
        for done, linear in enumerate(chosen.values()):
            calibration.told(done, len(chosen))
            weight = weight_of(linear)
            set_weight(linear, weight.masked_fill(self.of_layer(weight.float().abs()), 0))
        fuse_experts(model)
        calibration.told(len(chosen), len(chosen))
