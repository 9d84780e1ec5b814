"""The order in which the processor's kernel for 4-bit weights wants them, and that of 2 and 3 bits made from it.

The kernel's order depends on the processor: blocks of rows, each turned so that a byte holds two rows' codes of one
input. It is found out by packing numbers that can be told apart. Codes of 2 and 3 bits lie in the same order, several
rows to a half byte: two masks make 4-bit codes of them, which the kernel reads.

    2 bits: byte of row r of the first half | byte of row r of the second half << 2
    3 bits: the same of the two low bits; then those of the high bit, a quarter of the rows each, at bits 0, 1, 2, 3
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import BFloat16, UInt8
from torch import Tensor

GROUP_SIZES = (32, 64, 128, 256)
"""The groups that the kernel knows."""

_PARTS = {4: 1, 2: 2, 3: 4}
"""Into how many parts of equal rows a layer is cut, by bits."""


def fits_kernel(bits: int, out: int, inputs: int, group_size: int) -> bool:
    """Whether the kernel can read a layer of that shape on this machine's processor."""
    block = block_rows()
    return (
        block is not None
        and bits in _PARTS
        and group_size in GROUP_SIZES
        and inputs % group_size == 0
        and out % (block * _PARTS[bits]) == 0
    )


@cache
def block_rows() -> int | None:
    """The rows of a block in the kernel's order on this machine; None where it is none of those that are known."""
    codes = torch.randint(0, 16, (128, 6), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    packed = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
    for rows in (64, 32, 16):
        blocks = packed.reshape(-1, 6, rows // 2)  # [block, in, half row]
        found = torch.cat([blocks & 15, blocks >> 4], dim=2).transpose(1, 2).reshape(128, 6)
        if torch.equal(found, codes.to(torch.uint8)):
            return rows
    return None


def turn(codes: UInt8[Tensor, "out in"], bits: int) -> UInt8[Tensor, "row byte"]:
    """Codes in the kernel's order: [out * bits / 4, in / 2] bytes."""
    whole: Tensor = torch._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32), 1)
    if bits == 4:
        return whole
    low, high = (whole & 0x33).chunk(2)
    pairs = low | (high << 2)
    if bits == 2:
        return pairs
    quarters = ((whole >> 2) & 0x11).chunk(4)
    singles = quarters[0] | (quarters[1] << 1) | (quarters[2] << 2) | (quarters[3] << 3)
    return torch.cat([pairs, singles])


def whole_bytes(turned: UInt8[Tensor, "row byte"], bits: int) -> UInt8[Tensor, "out byte"]:
    """Turned codes as the kernel reads them, 4 bits each."""
    if bits == 4:
        return turned
    out = turned.shape[0] * 4 // bits
    pairs = turned[: out // 2]
    whole = torch.empty(out, turned.shape[1], dtype=torch.uint8)
    torch.bitwise_and(pairs, 0x33, out=whole[: out // 2])
    torch.bitwise_right_shift(pairs, 2, out=whole[out // 2 :])
    whole[out // 2 :] &= 0x33
    if bits == 3:
        singles = turned[out // 2 :]
        high = torch.empty_like(singles)
        for quarter, part in enumerate(whole.chunk(4)):
            shift = torch.bitwise_left_shift if quarter < 2 else torch.bitwise_right_shift
            shift(singles, abs(2 - quarter), out=high)
            part |= high.bitwise_and_(0x44)
    return whole


def unturn(turned: UInt8[Tensor, "row byte"], bits: int) -> UInt8[Tensor, "out in"]:
    """The codes that `turn` turned."""
    whole = whole_bytes(turned, bits)
    rows = block_rows() or 2
    blocks = whole.reshape(-1, whole.shape[1] * 2, rows // 2).transpose(1, 2).contiguous()  # [block, half row, in]
    codes = torch.empty(len(blocks), rows, blocks.shape[2], dtype=torch.uint8)
    torch.bitwise_and(blocks, 15, out=codes[:, : rows // 2])
    torch.bitwise_right_shift(blocks, 4, out=codes[:, rows // 2 :])
    return codes.flatten(0, 1)


def multiply(
    x: BFloat16[Tensor, "token in"],
    turned: UInt8[Tensor, "row byte"],
    scales: BFloat16[Tensor, "group out 2"],
    bits: int,
) -> BFloat16[Tensor, "token out"]:
    """x W^T with W = scales[..., 0] (code - 8) + scales[..., 1], by the kernel, which is made for few tokens."""
    group_size = x.shape[1] // scales.shape[0]
    product: Tensor = torch._weight_int4pack_mm_for_cpu(x, whole_bytes(turned, bits), group_size, scales)
    return product
