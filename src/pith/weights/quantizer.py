"""What methods that store weights in few bits have in common."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from pith.core import ModelError, Patterns, param
from pith.weights.calibration import Calibration
from pith.weights.compressor import Compressor
from pith.weights.duplicate import duplicate
from pith.weights.experts import split_experts
from pith.weights.grid import Grid, fit_grid, fitting_group, size_of_group
from pith.weights.linears import linears, weight_of
from pith.weights.packed import pack_linear
from pith.weights.size import bytes_when_packed

Bits = Literal[2, 3, 4, 8]


@dataclass(frozen=True, kw_only=True)
class Quantizer(Compressor, ABC):
    """A compressor that stores weights in few bits; a recipe holds one of them."""

    question: ClassVar[str] = "in how many bits are weights stored?"
    contract: ClassVar[str] = "quantization"


@dataclass(frozen=True, kw_only=True)
class WeightQuantizer(Quantizer, ABC):
    """A quantizer with a number of bits for every layer, and a grid for every group of a row's inputs.

    Class attributes:
        most: the largest group size that `group_size="auto"` takes.
    """

    most: ClassVar[int] = 128

    bits: Bits | Patterns = param(
        4, 'of a weight; by name pattern too, as {"*.down_proj": 4, "*": 3}', sweep=(2, 3, 4, 8)
    )
    group_size: int | Literal["auto"] = param(
        "auto",
        "inputs of a row that share a grid; 0 for the whole row, as always with 8 bits; auto for the largest of 128, "
        "64 and 32 that divides the inputs of all layers",
        ge=0,
    )
    symmetric: bool = param(False, "whether a grid reaches as far below 0 as above; with 8 bits always")
    skip: str | tuple[str, ...] = param("lm_head", "name patterns of layers that stay as they are")

    def fitted_to(self, model: Any) -> WeightQuantizer:
        """The method with the group size that `auto` takes for a model; see `fitting_group`.

        Raises:
            ModelError: as of `chosen`.
        """
        if self.group_size != "auto":
            return self
        own = duplicate(model)  # choosing may split experts
        chosen = self.chosen(own)
        widths = [weight_of(own.get_submodule(name)).shape[1] for name, bits in chosen.items() if bits != 8]
        return replace(self, group_size=fitting_group(widths, self.most)) if widths else self

    def group_of(self, bits: int, inputs: int) -> int:
        """The inputs of a group in a layer; a whole row where that is all of them."""
        size = fitting_group([inputs], self.most) if self.group_size == "auto" else self.group_size
        return size_of_group(0 if bits == 8 else size, inputs)

    def chosen(self, model: Any) -> dict[str, int]:
        """The bits of every plain linear layer that is to be stored in few, by name, in the order of the model.

        Experts that are fused get linear layers of their own first.

        Raises:
            ModelError: there is none.
        """
        split_experts(model, self.skip)
        found: dict[str, int] = {}
        for name, _ in linears(model, self.skip):
            bits = self.bits.of(name) if isinstance(self.bits, Patterns) else self.bits
            if bits is not None:
                found[name] = bits
        if not found:
            raise ModelError(
                f"{self}: {type(model).__name__} has no plain linear layer that bits={self.bits} fits and "
                f"skip={self.skip!r} leaves"
            )
        return found

    def predicted_bytes(self, model: Any) -> int | None:
        """See `bytes_when_packed`."""
        own, method = duplicate(model), self.fitted_to(model)  # choosing may split experts
        return bytes_when_packed(own, method.chosen(own), method.group_of)

    def grid(self, weight: Float[Tensor, "out in"], bits: int) -> Grid:
        """The grid from the least to the greatest weight; its scales are rounded as they will be stored."""
        grid = fit_grid(weight, bits, self.group_of(bits, weight.shape[1]), self.symmetric or bits == 8)
        return grid.stored_as(weight.dtype)

    def round_to_nearest(self, model: Any, name: str, bits: int) -> None:
        """Packs a layer with every weight at the nearest value of its grid."""
        weight = weight_of(model.get_submodule(name))
        grid = self.grid(weight, bits)
        pack_linear(model, name, grid, grid.codes(weight.float()))

    def round_all(self, model: Any, calibration: Calibration) -> None:
        """Packs every chosen layer with its weights at the nearest values of its grid."""
        chosen = self.chosen(model)
        for done, (name, bits) in enumerate(chosen.items()):
            calibration.told(done, len(chosen))
            self.round_to_nearest(model, name, bits)
        calibration.told(len(chosen), len(chosen))
