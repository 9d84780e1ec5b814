"""The values that a quantised weight can take: a grid of equal steps for every group of a row."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

from pith.core import InputError
from pith.weights.int4 import GROUP_SIZES

_LEAST = 16
"""The smallest group that `fitting_group` takes: the two numbers of a smaller one take more bytes than its codes."""


@dataclass(frozen=True)
class Grid:
    """Equal steps, for every group of consecutive inputs of every row.

        code  = clamp(round(w / scale + zero), 0, 2^bits - 1)
        value = scale * (code - zero)

    A whole zero is added after rounding, so that ties fall as in the papers' formulas.

    Attributes:
        bits: of a code.
        scale: the step of each group; groups may be fewer than one a row only for methods that say so.
        zero: the code of the value 0, whole for all methods but those that let it lie between codes.
        group_size: inputs of a group; the last group of a row may have fewer.
    """

    bits: int
    scale: Float[Tensor, "out group"]
    zero: Float[Tensor, "out group"]
    group_size: int

    @property
    def largest(self) -> int:
        """The largest code."""
        return int(2**self.bits - 1)

    def codes(self, weight: Float[Tensor, "out in"]) -> UInt8[Tensor, "out in"]:
        """The nearest code of every weight."""
        scale, zero = self.spread(weight.shape[1])
        return self._rounded(weight / scale, zero).to(torch.uint8)

    def values(self, codes: Integer[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """The values that codes stand for."""
        scale, zero = self.spread(codes.shape[1])
        return scale * (codes - zero)

    def nearest(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """Every weight at its nearest value of the grid."""
        return self.values(self.codes(weight))

    def column(self, index: int, weight: Float[Tensor, " out"]) -> tuple[Float[Tensor, " out"], Float[Tensor, " out"]]:
        """Codes, as whole numbers in the dtype of the weight, and values of one column of weights."""
        scale, zero = self.scale[:, index // self.group_size], self.zero[:, index // self.group_size]
        codes = self._rounded(weight / scale, zero)
        return codes, scale * (codes - zero)

    def _rounded(self, steps: Tensor, zero: Tensor) -> Tensor:
        whole = zero.round()
        return (steps + (zero - whole)).round().add(whole).clamp(0, self.largest)

    def stored_as(self, dtype: torch.dtype) -> Grid:
        """The grid with scales that a dtype can hold, so that codes are chosen for the values that will be read.

        A scale that the dtype would round to 0 becomes the smallest that it holds.
        """
        scale = self.scale.to(dtype).float()
        return replace(self, scale=torch.where(scale == 0, torch.finfo(dtype).tiny, scale))

    def spread(self, inputs: int) -> tuple[Float[Tensor, "out in"], Float[Tensor, "out in"]]:
        """Scale and zero of every weight."""
        return tuple(  # type: ignore[return-value]
            one.repeat_interleave(self.group_size, dim=1)[:, :inputs] for one in (self.scale, self.zero)
        )


def grouped(weight: Float[Tensor, "out in"], group_size: int) -> Float[Tensor, "out group member"]:
    """The weight in groups; where the last group is not full, its last member stands for those that lack."""
    lacking = -weight.shape[1] % group_size
    if lacking:
        weight = torch.cat([weight, weight[:, -1:].expand(-1, lacking)], dim=1)
    return torch.unflatten(weight, 1, (-1, group_size))


def size_of_group(group_size: int, inputs: int) -> int:
    """The inputs of a group: a whole row where `group_size` is 0 or a row has fewer.

    Raises:
        InputError: the size is negative.
    """
    if group_size < 0:
        raise InputError(f"group_size={group_size} makes no sense; allowed is 0 for whole rows, or 1 or more")
    return min(group_size, inputs) or inputs


def fitting_group(inputs: Iterable[int], most: int = 128) -> int:
    """Return the largest group size that divides the inputs of all layers: 64 for layers of 576 and 1536 inputs.

    Sizes for which there is a kernel (128, 64, 32) come first, then the largest common divisor of at least 16. Where
    there is none of these it is `most`, with which the last group of a row has fewer inputs.

    Args:
        inputs: of each layer.
        most: the largest size that is returned.
    """
    common = math.gcd(*inputs)
    kernel = [size for size in GROUP_SIZES if size <= most and common and common % size == 0]
    others = [size for size in range(_LEAST, most + 1) if common and common % size == 0]
    return max(kernel or others or [most])


def fit_grid(weight: Float[Tensor, "out in"], bits: int, group_size: int, symmetric: bool = False) -> Grid:
    """The grid from the least to the greatest weight of each group, 0 always among its values.

        asymmetric: low = min(w, 0), high = max(w, 0); scale = (high - low) / (2^bits - 1); zero = round(-low / scale)
        symmetric:  scale = 2 max|w| / (2^bits - 1); zero = 2^(bits - 1)

    A group of zeros only gets the range from -1 to 1.

    Args:
        weight: what is to be stored.
        bits: of a code.
        group_size: inputs of a group, 0 for whole rows.
        symmetric: whether the grid reaches as far below 0 as above.
    """
    size = size_of_group(group_size, weight.shape[1])
    groups = grouped(weight.float(), size)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    empty = (low == 0) & (high == 0)
    low, high = torch.where(empty, -1.0, low), torch.where(empty, 1.0, high)
    scale = (high - low) / (2**bits - 1)
    zero = torch.full_like(scale, 2 ** (bits - 1)) if symmetric else (-low / scale).round()
    return Grid(bits, scale, zero, size)
