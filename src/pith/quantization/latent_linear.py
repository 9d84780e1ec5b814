"""A linear layer whose weight is a low-rank part and what a small decoder makes of codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pith.quantization.latent import BLOCK, BLOCKS, STRIP, Decoder, Scales, decoded, from_vectors
from pith.weights import StandIn
from pith.weights.bits import pack, packed_bytes, unpack

STORED = torch.float16
"""The dtype of the low-rank part and of the decoder."""


@dataclass(frozen=True)
class Shape:
    """How large a layer is, and how it is coded.

    Attributes:
        inputs, out: of the linear layer.
        bias: whether it has one.
        bits: of a code.
        run: weights that a code stands for.
        rank: of the low-rank part.
        hidden: numbers of the decoder's network.
        permuted: whether every strip of rows has an order of its columns.
    """

    inputs: int
    out: int
    bias: bool
    bits: int
    run: int
    rank: int
    hidden: int
    permuted: bool

    def tensors(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """The shape and dtype of all that stands for the weight."""
        rows, blocks = -(-self.out // self.run), -(-self.out * self.inputs // BLOCK)
        codes = 2**self.bits
        held = {
            "codes": ((rows, packed_bytes(self.inputs, self.bits)), torch.uint8),
            "steps": ((blocks,), torch.uint8),
            "tops": ((-(-blocks // BLOCKS),), torch.float32),
            "offset": ((1,), torch.float32),
            "latents": ((codes, self.run), STORED),
            "mix": ((2 * self.run, self.hidden), STORED),
            "phase": ((self.hidden,), STORED),
            "mixed": ((self.hidden, self.run), STORED),
            "left": ((self.out, self.rank), STORED),
            "right": ((self.rank, self.inputs), STORED),
        }
        if self.permuted:
            index = torch.uint8 if self.inputs <= 256 else torch.int16 if self.inputs <= 2**15 else torch.int32
            held["places"] = ((-(-self.out // STRIP), self.inputs), index)
        return held

    def nbytes(self) -> int:
        """The bytes of all that stands for the weight."""
        return sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in self.tensors().values())


class LatentLinear(StandIn):
    """y = x Q^T + (x right^T) left^T + bias, where a decoder makes Q of packed codes in every forward.

    Attributes:
        shape: how large it is, and how it is coded.
        bias: [out], or None.
    """

    kind: ClassVar[str] = "latent"

    def __init__(self, shape: Shape, dtype: torch.dtype) -> None:
        super().__init__()
        self.shape, self.in_features, self.out_features = shape, shape.inputs, shape.out
        for name, (size, stored) in shape.tensors().items():
            self.register_buffer(name, torch.empty(size, dtype=stored))
        self.places: Tensor
        self.bias = nn.Parameter(torch.empty(shape.out, dtype=dtype), requires_grad=False) if shape.bias else None

    def forward(self, x: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        """The product, in the dtype of x."""
        low = F.linear(F.linear(x, self.right.to(x.dtype)), self.left.to(x.dtype))
        return F.linear(x, self.residual().to(x.dtype), self.bias).add_(low)

    def residual(self) -> Float[Tensor, "out in"]:
        """What the codes stand for, in float32."""
        shape = self.shape
        table = Decoder(self.latents, self.mix, self.phase, self.mixed).table()
        parts = decoded(unpack(self.codes, shape.bits, shape.inputs).long(), table)
        scale = Scales(self.steps, self.tops, self.offset).spread(shape.out, shape.inputs)
        weight = from_vectors(parts, shape.out).mul_(scale)
        if not shape.permuted:
            return weight
        return weight.gather(1, self.places.long().repeat_interleave(STRIP, dim=0)[: shape.out])

    def dense(self) -> Float[Tensor, "out in"]:
        """The whole weight, in float32."""
        return self.residual() + self.left.float() @ self.right.float()

    def hold(
        self,
        codes: Int[Tensor, "row input"],
        scales: Scales,
        decoder: Decoder,
        low: tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in"]],
        order: Int[Tensor, "strip in"] | None,
    ) -> None:
        """Takes what was found for a matrix.

        Args:
            codes: one for each vector.
            scales: of the weights in the order in which they are coded.
            decoder: with numbers that the layer's dtype can hold.
            low: the low-rank part, left and right.
            order: of the columns of every strip, where they were reordered.
        """
        self.codes = pack(codes.to(torch.uint8), self.shape.bits)
        self.steps, self.tops, self.offset = scales.steps, scales.tops, scales.offset
        self.latents, self.mix, self.phase, self.mixed = decoder.stored_as(STORED).tensors()
        self.left, self.right = (part.to(STORED) for part in low)
        if order is not None:
            self.places = order.argsort(dim=1).to(self.places.dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """What stands for the weight goes along to another device, and keeps its dtype, for which codes were chosen."""
        held = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in held.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def plan(self) -> dict[str, Any]:
        """See `StandIn`."""
        return {**vars(self.shape)}

    @classmethod
    def build(cls, plan: Mapping[str, Any], replaced: nn.Module, dtype: torch.dtype) -> LatentLinear:
        """See `StandIn`."""
        return cls(Shape(**plan), dtype)

    def extra_repr(self) -> str:
        """Its shape and how it is stored."""
        shape = self.shape
        return (
            f"in_features={shape.inputs}, out_features={shape.out}, bias={shape.bias}, bits={shape.bits} for "
            f"{shape.run}, rank={shape.rank}"
        )


def bits_per_weight(model: nn.Module) -> float:
    """The bits that a model's latent layers hold for each of their weights.

    Codes, scales, orders of columns, decoders and low-rank parts are counted in, as they lie in memory; biases are not.
    """
    layers = [module for module in model.modules() if isinstance(module, LatentLinear)]
    held = sum(buffer.nbytes for layer in layers for buffer in layer.buffers(recurse=False))
    return 8 * held / sum(layer.in_features * layer.out_features for layer in layers)
