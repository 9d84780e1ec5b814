"""Small whole numbers in few bits.

A byte holds the codes of channels that lie a width apart: with `width = dim * bits / 8` bytes for each token, channel
`plane * width + k` is in byte `k`, in the bits of its plane. So a plane is a run of neighbouring channels that one mask
takes out of all bytes at once. Products are taken with one plane after the other: it fits a processor's cache, and the
shift is made good in the factors.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from pith.core import InputError


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


def planes(packed: UInt8[Tensor, "*lead width"], bits: int) -> Iterator[Float[Tensor, "*lead width"]]:
    """The codes as numbers, a plane at a time, as a mask takes them out of the bytes: to be multiplied by `factors`."""
    for shift in range(0, 8, bits):
        yield (packed if bits == 8 else packed & ((2**bits - 1) << shift)).float()


def factors(bits: int, device: torch.device) -> Float[Tensor, " plane"]:
    """What the numbers of each plane are to be multiplied by to be codes."""
    return torch.tensor([2.0**-shift for shift in range(0, 8, bits)], device=device)
