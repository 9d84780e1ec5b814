"""HQQ: the zero of every grid moves to where few weights are far from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pith.core import Paper, param
from pith.weights import Calibration, Grid, WeightQuantizer
from pith.weights.grid import grouped

_LARGEST_STEPS = 2e4
"""The most steps that a grid has in a range of 1."""


@dataclass(frozen=True, kw_only=True)
class HQQ(WeightQuantizer):
    """Round to a grid whose zero lies between codes, where half-quadratic splitting puts it; nothing is read.

        zero, error = argmin  sum |error|^norm + beta / 2 ||error - (W - Q^-1(Q(W)))||^2
        error <- sign(r) max(0, |r| - |r|^(norm - 1) / beta),  r = W - scale (code - zero)         (first sub-problem)
        zero  <- mean over the group of  code - (W - error) / scale;   beta <- kappa beta         (second sub-problem)

    A norm below 1 lets a few weights of a group lie far from the grid, so that all others lie near it. The scale stays
    (max - min) / (2^bits - 1). The two steps are repeated until the mean |r| of the layer no longer falls.

    Deviates: in the authors' article, which is no arXiv paper, beta is 1; in their code, and here, it is 10. As their
    code does, the zero is moved once more after the last step that was better; and with 4 bits it begins at a whole
    number. Groups lie along the inputs (their axis 1). A group that is not full is one of its own size. The scale is
    rounded to the model's dtype before the zero is looked for; their code works in float16 where there is CUDA. Weights
    of 8 bits have no zero to move, as there is one symmetric grid a row: they are rounded to nearest, which is said.
    """

    paper: ClassVar[Paper] = Paper(
        "",
        "Half-Quadratic Quantization of Large Machine Learning Models",
        "Hicham Badri, Appu Shaji",
        2023,
        "dropbox/hqq",
    )
    calibrated: ClassVar[bool] = False
    most: ClassVar[int] = 64
    symmetric: ClassVar[bool] = False  # type: ignore[misc]  # no parameter: the zero is what the method looks for

    norm: float = param(0.7, "of the errors that are made small, 1 or less", ge=0.1, le=1)
    beta: float = param(10.0, "how strongly errors are held to what rounding leaves, at first", ge=1e-3)
    kappa: float = param(1.01, "by what beta grows at every step", ge=1)
    iterations: int = param(20, "steps at most", ge=1)

    def change(self, model: Any, calibration: Calibration) -> None:
        """Rounds layer by layer."""
        if whole := [name for name, bits in self.chosen(model).items() if bits == 8]:
            self.warn(f"{len(whole)} layers of 8 bits have no zero to move: they are rounded to nearest")
        self.round_all(model, calibration)

    def grid(self, weight: Float[Tensor, "out in"], bits: int) -> Grid:
        """The grid with the zero that fits best; its values are those that will be read."""
        if bits == 8:
            return super().grid(weight, bits)
        size = self.group_of(bits, weight.shape[1])
        groups = grouped(weight.float(), size)
        real = torch.arange(groups.shape[1] * size, device=weight.device).view(-1, size) < weight.shape[1]
        low, high = groups.amin(-1), groups.amax(-1)
        steps = (2**bits - 1) / (high - low)
        steps = torch.where(high - low <= 1e-4, 1.0, steps).clamp(max=_LARGEST_STEPS)
        scale = Grid(bits, 1 / steps, low, size).stored_as(weight.dtype).scale
        zero = -low / scale
        zero = self._zero(groups, real, Grid(bits, scale, zero.round() if bits == 4 else zero, size))
        middle = ((8 - zero) * scale).to(weight.dtype).float()  # what packed layers hold
        return Grid(bits, scale, 8 - middle / scale, size)

    def _zero(
        self, groups: Float[Tensor, "out group member"], real: Bool[Tensor, "group member"], grid: Grid
    ) -> Float[Tensor, "out group"]:
        """The zero after the last step; members that fill a group up count for nothing."""
        scale, zero, beta = grid.scale[..., None], grid.zero[..., None], self.beta
        count = real.sum(-1, keepdim=True)
        best = torch.inf
        for _ in range(self.iterations):
            codes = (groups / scale + zero).round().clamp(0, grid.largest)
            rest = (groups - scale * (codes - zero)) * real
            size = rest.abs()
            error = (size - size.pow(self.norm - 1) / beta).clamp(min=0) * rest.sign()
            zero = ((codes - (groups - error) / scale) * real).sum(-1, keepdim=True) / count
            beta *= self.kappa
            mean = float(size.sum()) / (len(groups) * int(count.sum()))
            if mean >= best:
                break
            best = mean
        return zero[..., 0]
