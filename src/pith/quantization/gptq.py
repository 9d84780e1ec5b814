"""GPTQ: rounding column by column, the columns that follow making up for each error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from pith.core import ModelError, Paper, param
from pith.weights import (
    Calibration,
    Grid,
    Stage,
    WeightQuantizer,
    block_name,
    blocks,
    fit_grid,
    pack_linear,
    walk,
    weight_of,
)
from pith.weights.columns import quantized_by_columns
from pith.weights.hessian import in_turn, moments
from pith.weights.shrink import shrunk


@dataclass(frozen=True, kw_only=True)
class GPTQ(WeightQuantizer):
    """Round a layer's weights one column after another; columns not yet rounded make up for what a column lost.

        H = 2 / N sum_t x_t x_t^T,    U^T U = (H + damping mean(diag H) I)^-1, U upper
        q_j = nearest value of the grid to w_j,    e = (w_j - q_j) / U_jj,    w_k = w_k - e U_jk for every k > j
                                                                                      (algorithm 1, equations 2 and 3)

    It reads texts, block by block: each block's inputs come from the blocks before it as they were rounded. The grid is
    that of `rtn`, of a group fitted to what is left of its weights when its first column is reached. With 8 bits there
    is one scale a row, symmetric. Beside the model it holds one block's inputs and, for each of its layers, numbers as
    many as inputs squared.

    Deviates: groups of at most 128 by default, whole rows in the paper's main tables. The authors' code fits groups
    whose size is no multiple of 128 to weights that are behind by up to 127 columns; here they are up to date (with
    their block of columns as long as a group, theirs gives the same). Symmetric grids of rows without negative weights
    reach as far as others, and do not clip at half. `act_order` keeps every group's own inputs together (the authors'
    static groups), so that no index of groups is stored. Where the Hessian cannot be inverted, ten times the damping is
    tried. Layers that no token reached are rounded to nearest and named; so, unnamed, are layers outside the blocks.
    """

    paper: ClassVar[Paper] = Paper(
        "2210.17323",
        "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
        "Elias Frantar, Saleh Ashkboos, Torsten Hoefler, Dan Alistarh",
        2022,
        "IST-DASLab/gptq",
    )

    act_order: bool = param(False, "whether columns are taken by how much they read, most first, not in their order")
    true_sequential: bool = param(False, "whether layers of a block read what those before them, already rounded, give")
    mse: bool = param(False, "whether each grid's range is made smaller where that comes nearer to the weights")
    damping: float = param(0.01, "share of the mean of the Hessian's diagonal that is added to it", ge=0.0)

    def change(self, model: Any, calibration: Calibration) -> None:
        """Rounds block by block."""
        chosen = self.chosen(model)
        unreached: list[str] = []
        for stage in self.stages(model, calibration):
            inside = {name: bits for name, bits in chosen.items() if name.startswith(f"{stage.name}.")}
            if inside:
                unreached += self._round_block(model, stage, inside)
        begin = tuple(f"{block_name(model, index)}." for index in range(len(blocks(model))))
        for name, bits in chosen.items():
            if not name.startswith(begin):
                self.round_to_nearest(model, name, bits)
        self.warn_unreached(unreached, "they are rounded to nearest")

    def stages(self, model: Any, calibration: Calibration) -> Iterator[Stage]:
        """The blocks with what they read."""
        return walk(model, calibration)

    def importance(self, model: Any, stage: Stage) -> Float[Tensor, " token"] | None:
        """What each token that a block reads counts; None where all count the same."""
        return None

    def grid(self, weight: Float[Tensor, "out in"], bits: int) -> Grid:
        """As for every quantizer; with `mse` its ranges are made smaller."""
        grid = self.fitted(weight, bits)
        return (shrunk(grid, weight) if self.mse else grid).stored_as(weight.dtype)

    def fitted(self, weight: Float[Tensor, "out in"], bits: int) -> Grid:
        """The grid from the least to the greatest weight."""
        return fit_grid(weight, bits, self.group_of(bits, weight.shape[1]), self.symmetric or bits == 8)

    def _round_block(self, model: Any, stage: Stage, chosen: dict[str, int]) -> list[str]:
        """Rounds and packs the layers of a block, and names those that no token reached."""
        layers = {name: model.get_submodule(name) for name in chosen}
        importance = self.importance(model, stage)
        unreached: list[str] = []
        for names in in_turn(stage, layers) if self.true_sequential else [list(layers)]:
            read = moments(stage, {name: layers[name] for name in names}, importance)
            for name in names:
                if read[name].tokens:
                    self._pack(model, name, chosen[name], read.pop(name).hessian(sum(map(len, stage.inputs))))
                else:
                    self.round_to_nearest(model, name, chosen[name])
                    unreached.append(name)
        return unreached

    def _pack(self, model: Any, name: str, bits: int, hessian: Float[Tensor, "in in"]) -> None:
        weight = weight_of(model.get_submodule(name))
        try:
            grid, codes = quantized_by_columns(
                weight,
                hessian,
                lambda some: self.grid(some, bits).stored_as(weight.dtype),
                group_size=self.group_of(bits, weight.shape[1]),
                act_order=self.act_order,
                damping=self.damping,
            )
        except ModelError as error:
            raise ModelError(f"{self.name}: {name}: {error}") from None
        pack_linear(model, name, grid, codes)
