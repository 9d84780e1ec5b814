from __future__ import annotations

import pytest
import torch

from pith.weights import int4

HAS_KERNEL = pytest.mark.skipif(int4.block_rows() is None, reason="this processor's order of 4-bit codes is not known")


def codes(out: int, inputs: int, bits: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(bits)
    return torch.randint(0, 2**bits, (out, inputs), generator=generator, dtype=torch.uint8)


@HAS_KERNEL
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_kernels_order_comes_back_and_takes_as_many_bytes(bits: int, blocks: int) -> None:
    out = (int4.block_rows() or 0) * {4: 1, 2: 2, 3: 4}[bits] * blocks
    given = codes(out, 64, bits)
    turned = int4.turn(given, bits)
    assert turned.numel() == out * 64 * bits // 8
    assert torch.equal(int4.unturn(turned, bits), given)


@HAS_KERNEL
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group_size", int4.GROUP_SIZES)
@pytest.mark.parametrize("tokens", [1, 5])
def test_the_kernel_multiplies_as_the_formula_says(bits: int, group_size: int, tokens: int) -> None:
    out, inputs = (int4.block_rows() or 0) * 4, 512
    generator = torch.Generator().manual_seed(0)
    given = codes(out, inputs, bits)
    scales = torch.rand(inputs // group_size, out, 2, generator=generator).add(0.1).bfloat16()
    x = torch.randn(tokens, inputs, generator=generator).bfloat16()
    spread = scales.float().repeat_interleave(group_size, 0)  # [in, out, 2]
    weight = spread[..., 0] * (given.T.float() - 8) + spread[..., 1]
    expected = x.float() @ weight
    found = int4.multiply(x, int4.turn(given, bits), scales, bits)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("bits", "out", "inputs", "group_size"),
    [(4, 100, 128, 32), (4, 256, 130, 32), (4, 256, 96, 96), (8, 256, 128, 32), (3, 64, 128, 32), (2, 64, 128, 32)],
)
def test_shapes_that_the_kernel_cannot_read_are_known(bits: int, out: int, inputs: int, group_size: int) -> None:
    if (int4.block_rows() or 64) < 64:
        out = min(out, 24)  # fewer rows than a block of any processor
    assert not int4.fits_kernel(bits, out, inputs, group_size)
