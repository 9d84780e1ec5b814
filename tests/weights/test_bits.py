from __future__ import annotations

import pytest
import torch

from pith.weights.bits import pack, packed_bytes, unpack


def random_codes(out: int, inputs: int, bits: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(inputs * 10 + bits)
    return torch.randint(0, 2**bits, (out, inputs), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("inputs", [1, 7, 8, 9, 31, 32, 33, 100])
def test_codes_come_back_and_take_their_bits(inputs: int, bits: int) -> None:
    codes = random_codes(5, inputs, bits)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (5, packed_bytes(inputs, bits))
    assert packed_bytes(inputs, bits) * 8 < inputs * bits + 8 * bits
    assert torch.equal(unpack(packed, bits, inputs), codes)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_codes_lie_one_after_another_low_bits_first(bits: int) -> None:
    codes = random_codes(1, 16, bits)
    number = sum(int(code) << (bits * index) for index, code in enumerate(codes[0]))
    assert bytes(pack(codes, bits)[0].tolist()) == number.to_bytes(2 * bits, "little")


def test_no_rows_are_no_bytes() -> None:
    assert pack(torch.zeros(0, 8, dtype=torch.uint8), 3).shape == (0, 3)
