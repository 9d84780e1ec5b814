"""Small whole numbers in few bits.

A byte holds the codes of channels that lie a width apart: with `width = dim * bits / 8` bytes for each token, channel
`plane * width + k` is in byte `k`, in the bits of its plane. So a plane is a run of neighbouring channels that one mask
takes out of all bytes at once, and products with it need neither a shift nor a second copy of the codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from pith.core import InputError


@dataclass(frozen=True)
class Plane:
    """Neighbouring channels that share their place in the bytes.

    Attributes:
        channels: which ones.
        factor: what `numbers` are to be multiplied by to be the codes.
        numbers: the codes, where they lie in the bytes.
    """

    channels: slice
    factor: float
    numbers: Float[Tensor, "*lead width"]


def pack(codes: UInt8[Tensor, "*lead dim"], bits: int) -> UInt8[Tensor, "*lead width"]:
    """Codes below 2 ** bits, of 2, 4 or 8 bits, in as few bytes as they fill.

    Raises:
        InputError: the codes of a token do not fill whole bytes.
    """
    each = 8 // bits
    if codes.shape[-1] % each:
        raise InputError(
            f"heads of size {codes.shape[-1]} cannot be stored in {bits} bits; allowed are multiples of {each}"
        )
    planes = rearrange(codes, "... (plane width) -> ... plane width", plane=each)
    packed: Tensor = planes[..., 0, :].clone()
    for plane in range(1, each):
        packed |= planes[..., plane, :] << (bits * plane)
    return packed


def unpack(packed: UInt8[Tensor, "*lead width"], bits: int) -> UInt8[Tensor, "*lead dim"]:
    """The codes that `pack` was given."""
    if bits == 8:
        return packed
    return torch.cat([(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)], dim=-1)


def planes(packed: UInt8[Tensor, "*lead width"], bits: int) -> Iterator[Plane]:
    """The codes as numbers, a plane at a time; each plane's tensor is the caller's."""
    width = packed.shape[-1]
    for plane in range(8 // bits):
        shift = bits * plane
        numbers = (packed if bits == 8 else packed & ((2**bits - 1) << shift)).float()
        yield Plane(slice(plane * width, (plane + 1) * width), 2.0**-shift, numbers)
