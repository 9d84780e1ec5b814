"""Codes of few bits, packed without a gap."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor


def pack(codes: UInt8[Tensor, "out in"], bits: int) -> UInt8[Tensor, "out byte"]:
    """Codes one after another, low bits first: eight codes take `bits` bytes; rows are filled up to whole eights."""
    lacking = -codes.shape[1] % 8
    eights = torch.unflatten(torch.nn.functional.pad(codes, (0, lacking)), 1, (-1, 8))
    shifts = torch.arange(8, dtype=torch.uint8, device=codes.device)
    flat = ((eights.unsqueeze(-1) >> shifts[:bits]) & 1).flatten(2)  # [out, eight, bit]
    packed: Tensor = (torch.unflatten(flat, 2, (bits, 8)) << shifts).sum(-1, dtype=torch.uint8)
    return packed.flatten(1)


def unpack(packed: UInt8[Tensor, "out byte"], bits: int, inputs: int) -> UInt8[Tensor, "out in"]:
    """What `pack` packed, of rows of so many inputs."""
    if bits in (2, 4):  # a code lies within a byte
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
        within: Tensor = (packed.unsqueeze(-1) >> shifts) & (2**bits - 1)
        return within.flatten(1)[:, :inputs]
    eights = torch.unflatten(packed, 1, (-1, bits)).to(torch.int64)  # eight codes in `bits` bytes
    words = (eights << torch.arange(0, 8 * bits, 8, device=packed.device)).sum(-1, keepdim=True)
    shifts = torch.arange(0, 8 * bits, bits, device=packed.device)
    codes: Tensor = (words >> shifts) & (2**bits - 1)
    return codes.to(torch.uint8).flatten(1)[:, :inputs]


def packed_bytes(inputs: int, bits: int) -> int:
    """The bytes of one packed row."""
    return -(-inputs // 8) * bits
