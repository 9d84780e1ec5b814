"""Linear layers whose weights are stored in few bits, packed for real."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import BFloat16, Float, UInt8
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from pith.core import ModelError
from pith.weights import int4
from pith.weights.bits import pack, packed_bytes, unpack
from pith.weights.grid import Grid
from pith.weights.standin import StandIn


class PackedLinear(StandIn):
    """A linear layer with a coded weight: y = x W^T + bias, where `dense` gives W.

    Attributes:
        in_features, out_features: as of a linear layer.
        bits: of a code.
        codes, scales: the weight, as the class says.
        bias: [out], or None.

    Class attributes:
        few: the most tokens for which the processor's kernel is faster than decoding the weight and a dense product.
    """

    few: ClassVar[int]
    bits: int
    codes: Tensor
    scales: Tensor

    def __init__(self, inputs: int, out: int, bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, out
        self.bias = nn.Parameter(torch.empty(out, dtype=dtype), requires_grad=False) if bias else None

    @abstractmethod
    def dense(self) -> Float[Tensor, "out in"]:
        """The weight that the codes stand for, in the dtype of the scales."""

    @abstractmethod
    def grid_codes(self) -> tuple[Grid, UInt8[Tensor, "out in"]]:
        """The codes as they are, one a byte, and the grid that says what they stand for."""

    @property
    @abstractmethod
    def fast(self) -> bool:
        """Whether this machine has a kernel that reads the codes as they lie; else each forward decodes them."""

    @abstractmethod
    def multiply(self, x: BFloat16[Tensor, "token in"]) -> BFloat16[Tensor, "token out"]:
        """The product with the weight, by the kernel."""

    def forward(self, x: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        """The product, in the dtype of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        few = x.dtype == torch.bfloat16 and x.shape[:-1].numel() <= self.few
        if not (few and self.fast) or (x.requires_grad and torch.is_grad_enabled()):  # kernels have no backward
            return F.linear(x, self.dense().to(x.dtype), bias)
        product = self.multiply(x.reshape(-1, self.in_features)).view(*x.shape[:-1], self.out_features)
        return product if bias is None else product.add_(bias)

    def extra_repr(self) -> str:
        """Its shape."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Int8Linear(PackedLinear):
    """A weight of one byte a number and one scale a row: W = scale * code, code from -128 to 127.

    On a processor, in bfloat16 and with inputs that are a multiple of 16, few tokens are multiplied with the codes as
    they lie; otherwise each forward decodes the weight.
    """

    kind: ClassVar[str] = "int8"
    few: ClassVar[int] = 16

    def __init__(self, inputs: int, out: int, bias: bool, dtype: torch.dtype) -> None:
        super().__init__(inputs, out, bias, dtype)
        self.bits = 8
        self.register_buffer("codes", torch.empty(out, inputs, dtype=torch.int8))
        self.register_buffer("scales", torch.empty(out, dtype=dtype))

    @property
    def fast(self) -> bool:
        """See the class."""
        # of rows that are no multiple of 16 the kernel reads past the end
        return self.codes.device.type == "cpu" and self.scales.dtype == torch.bfloat16 and self.in_features % 16 == 0

    def multiply(self, x: BFloat16[Tensor, "token in"]) -> BFloat16[Tensor, "token out"]:
        """See the class."""
        product: Tensor = torch._weight_int8pack_mm(x, self.codes, self.scales)
        return product

    def dense(self) -> Float[Tensor, "out in"]:
        """See the class."""
        return self.codes.to(self.scales.dtype).mul_(self.scales[:, None])

    def grid_codes(self) -> tuple[Grid, UInt8[Tensor, "out in"]]:
        """Codes from 0 to 255, of which 128 stands for 0."""
        scale = self.scales.float()[:, None]
        codes = (self.codes.to(torch.int16) + 128).to(torch.uint8)
        return Grid(8, scale, torch.full_like(scale, 128), self.in_features), codes

    def plan(self) -> dict[str, Any]:
        """See `StandIn`."""
        return {"inputs": self.in_features, "out": self.out_features, "bias": self.bias is not None}

    @classmethod
    def build(cls, plan: Mapping[str, Any], replaced: nn.Module, dtype: torch.dtype) -> Int8Linear:
        """See `StandIn`."""
        return cls(plan["inputs"], plan["out"], plan["bias"], dtype)


class GroupedLinear(PackedLinear):
    """A weight in codes of 4, 3 or 2 bits, with two numbers for every group of inputs of a row.

        W = scale * (code - 8) + middle           scale, middle = scales[group, out, :]

    so that the value of code 0 need not lie on the grid of any integer. The file holds the codes in their order, packed
    without a gap. In memory they take the same bytes, and lie in the order that the processor's kernel wants where it
    has one for the shape: outputs that are a multiple of 64 (4 bits), 128 (2 bits) or 256 (3 bits). In bfloat16 it
    multiplies few tokens; for many, and for everything else, each forward decodes the weight.
    """

    kind: ClassVar[str] = "grouped"
    few: ClassVar[int] = 48

    def __init__(self, inputs: int, out: int, bias: bool, dtype: torch.dtype, *, bits: int, group_size: int) -> None:
        super().__init__(inputs, out, bias, dtype)
        self.bits, self.group_size, self.turned = bits, group_size, False
        self.register_buffer("codes", torch.empty(out, packed_bytes(inputs, bits), dtype=torch.uint8))
        self.register_buffer("scales", torch.empty(-(-inputs // group_size), out, 2, dtype=dtype))

    @property
    def fast(self) -> bool:
        """See the class."""
        return self._fits and self.scales.dtype == torch.bfloat16

    @property
    def _fits(self) -> bool:
        """Whether the codes may lie in the kernel's order, from which they are also decoded faster."""
        shape = (self.bits, self.out_features, self.in_features, self.group_size)
        return self.codes.device.type == "cpu" and int4.fits_kernel(*shape)

    def forward(self, x: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        """The product, in the dtype of x."""
        self._turn(self._fits)
        return super().forward(x)

    def multiply(self, x: BFloat16[Tensor, "token in"]) -> BFloat16[Tensor, "token out"]:
        """See the class."""
        return int4.multiply(x, self.codes, self.scales, self.bits)

    def dense(self) -> Float[Tensor, "out in"]:
        """See the class."""
        codes: Tensor = self._codes().view(torch.int8).sub(8).to(self.scales.dtype)
        scale, middle = self.scales.permute(2, 1, 0)  # [out, group]
        if self.in_features % self.group_size:
            spread = [one.repeat_interleave(self.group_size, 1)[:, : self.in_features] for one in (scale, middle)]
            return codes.mul_(spread[0]).add_(spread[1])
        groups = torch.unflatten(codes, 1, (-1, self.group_size))
        return groups.mul_(scale.unsqueeze(-1)).add_(middle.unsqueeze(-1)).flatten(1)

    def grid_codes(self) -> tuple[Grid, UInt8[Tensor, "out in"]]:
        """The grid's zero may lie between codes, where the method let it."""
        scale, middle = self.scales.float().permute(2, 1, 0)
        return Grid(self.bits, scale, 8 - middle / scale, self.group_size), self._codes()

    def plan(self) -> dict[str, Any]:
        """See `StandIn`."""
        return {
            "inputs": self.in_features, "out": self.out_features, "bias": self.bias is not None,
            "bits": self.bits, "group_size": self.group_size,
        }  # fmt: skip

    @classmethod
    def build(cls, plan: Mapping[str, Any], replaced: nn.Module, dtype: torch.dtype) -> GroupedLinear:
        """See `StandIn`."""
        inputs, out, bias = plan["inputs"], plan["out"], plan["bias"]
        return cls(inputs, out, bias, dtype, bits=plan["bits"], group_size=plan["group_size"])

    def extra_repr(self) -> str:
        """Its shape and how it is stored."""
        return f"{super().extra_repr()}, bits={self.bits}, group_size={self.group_size}"

    def _codes(self) -> UInt8[Tensor, "out in"]:
        return int4.unturn(self.codes, self.bits) if self.turned else unpack(self.codes, self.bits, self.in_features)

    def _turn(self, turned: bool) -> None:
        """Brings the codes into the order of the kernel, or back."""
        if turned != self.turned:
            codes = self._codes()
            self.codes = int4.turn(codes, self.bits) if turned else pack(codes, self.bits)
            self.turned = turned

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Before the layer goes to another device, its codes lie in their own order again."""
        self._turn(False)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: the codes in their own order, since another machine's kernel may want another."""
        held = dict(vars(self))
        if self.turned:
            held |= {"turned": False, "_buffers": {**self._buffers, "codes": pack(self._codes(), self.bits)}}
        return held

    def __deepcopy__(self, memo: dict[int, Any]) -> GroupedLinear:
        """Copy the codes as they are: a copy is on the same machine, and may share them."""
        memo[id(self)] = new = type(self).__new__(type(self))
        vars(new).update(copy.deepcopy(vars(self), memo))
        return new

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.turned:  # the kernel's order is this processor's; files hold the codes' own
            destination[f"{prefix}codes"] = pack(self._codes(), self.bits)

    def _load_from_state_dict(self, *args: Any) -> None:
        if self.turned:
            self.codes = torch.empty(self.out_features, packed_bytes(self.in_features, self.bits), dtype=torch.uint8)
            self.turned = False
        super()._load_from_state_dict(*args)


def pack_linear(model: Any, name: str, grid: Grid, codes: UInt8[Tensor, "out in"]) -> None:
    """Puts a packed layer in the place of a plain linear layer of the model.

    A grid over whole rows of 4, 3 or 2 bits is written as groups of 256 with equal scales where rows are a multiple of
    that, which the processor's kernel can read.

    Args:
        model: the model that holds the layer.
        name: of the layer.
        grid: what the codes stand for.
        codes: one for every weight.

    Raises:
        ModelError: no packed layer holds such a grid.
    """
    old = model.get_submodule(name)
    weight: Tensor = old.weight
    bias: Tensor | None = old.bias
    out, inputs = codes.shape
    packed: PackedLinear
    if grid.bits == 8:
        if grid.scale.shape[1] != 1 or bool((grid.zero != 128).any()):
            raise ModelError(f"{name}: 8 bits are stored with one scale a row, symmetric; allowed is no other grid")
        packed = Int8Linear(inputs, out, bias is not None, weight.dtype)
        packed.codes = (codes.to(torch.int16) - 128).to(torch.int8).contiguous()  # those of a Conv1D are turned
        packed.scales = grid.scale[:, 0].to(weight.dtype)
    elif grid.bits in (2, 3, 4):
        scale, zero, group = grid.scale, grid.zero, grid.group_size
        if scale.shape[1] == 1 and inputs > 256 and inputs % 256 == 0:
            group = 256
            scale, zero = (one.expand(-1, inputs // group) for one in (scale, zero))
        packed = GroupedLinear(inputs, out, bias is not None, weight.dtype, bits=grid.bits, group_size=group)
        packed.codes = pack(codes, grid.bits)
        scales = torch.stack([scale, (8 - zero) * scale], dim=-1)
        packed.scales = scales.to(weight.dtype).transpose(0, 1).contiguous()
    else:
        raise ModelError(f"{name}: weights of {grid.bits} bits have no packed layer; allowed are 8, 4, 3 and 2")
    if bias is not None:
        packed.bias = nn.Parameter(bias.detach(), requires_grad=False)
    model.set_submodule(name, packed.to(weight.device))


def dense_of(layer: nn.Module) -> Float[Tensor, "out in"]:
    """The weight of a linear layer, packed or plain."""
    if isinstance(layer, PackedLinear):
        return layer.dense()
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight.detach().T if isinstance(layer, Conv1D) else weight.detach()
