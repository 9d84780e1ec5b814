"""Packed layers against decoding and multiplying, which is what they stand for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from pith.core import ModelError
from pith.weights import Grid, PackedLinear, dense_of, fit_grid, int4, pack_linear, weight_of
from pith.weights.packed import GroupedLinear, Int8Linear

BITS = [2, 3, 4, 8]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def plain(out: int = 256, inputs: int = 512, bias: bool = True, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(out + inputs)
    return nn.Linear(inputs, out, bias=bias).to(dtype).requires_grad_(False)


def packed(layer: nn.Module, bits: int, group_size: int = 128) -> PackedLinear:
    """The layer packed, each weight at the nearest value of its grid."""
    model = nn.ModuleDict({"layer": layer})
    weight = weight_of(layer)
    grid = fit_grid(weight, bits, 0 if bits == 8 else group_size, bits == 8).stored_as(weight.dtype)
    pack_linear(model, "layer", grid, grid.codes(weight.float()))
    found = model["layer"]
    assert isinstance(found, PackedLinear)
    return found


def naive(layer: PackedLinear, x: torch.Tensor) -> torch.Tensor:
    """The product with the weight that codes and grid stand for, in float32."""
    grid, codes = layer.grid_codes()
    spread = [one.repeat_interleave(grid.group_size, 1)[:, : codes.shape[1]] for one in (grid.scale, grid.zero)]
    product = x.float() @ (spread[0] * (codes.float() - spread[1])).T
    return product if layer.bias is None else product + layer.bias.float()


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    allowed = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}[found.dtype]
    torch.testing.assert_close(found.float(), expected, rtol=allowed, atol=allowed * expected.abs().max().item())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3), (60,), (2, 1, 2)], ids=str)
def test_the_product_is_that_with_the_decoded_weight(
    bits: int, dtype: torch.dtype, bias: bool, shape: tuple[int, ...]
) -> None:
    layer = packed(plain(bias=bias, dtype=dtype), bits)
    x = torch.randn(*shape, 512, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = layer(x)
    assert found.shape == (*shape, 256)
    assert found.dtype == dtype
    near(found, naive(layer, x))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    ("out", "inputs", "group"), [(100, 130, 32), (33, 65, 64), (256, 96, 96), (8, 512, 0), (1, 1, 0)]
)
def test_shapes_that_no_kernel_reads(bits: int, out: int, inputs: int, group: int) -> None:
    layer = packed(plain(out, inputs, dtype=torch.bfloat16), bits, group)
    assert layer.fast == (bits == 8 and inputs % 16 == 0)
    x = torch.randn(3, inputs, generator=torch.Generator().manual_seed(1)).bfloat16()
    near(layer(x), naive(layer, x))


@pytest.mark.skipif(int4.block_rows() not in (16, 32, 64), reason="this processor's order of codes is not known")
@pytest.mark.parametrize("bits", BITS)
def test_in_bfloat16_the_kernel_reads_what_fits(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = packed(plain(dtype=torch.bfloat16), bits)
    assert layer.fast
    calls = []
    monkeypatch.setattr(type(layer), "dense", lambda self: calls.append(self) or torch.zeros(256, 512).bfloat16())
    layer(torch.ones(1, 512).bfloat16())
    assert not calls
    layer(torch.ones(layer.few + 1, 512).bfloat16())
    assert len(calls) == 1


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_tokens_give_no_rows(bits: int, dtype: torch.dtype) -> None:
    assert packed(plain(dtype=dtype), bits)(torch.zeros(2, 0, 512, dtype=dtype)).shape == (2, 0, 256)


@pytest.mark.parametrize("bits", BITS)
def test_gradients_pass_through_to_what_came_before(bits: int) -> None:
    layer = packed(plain(dtype=torch.bfloat16), bits)
    x = torch.ones(1, 512, dtype=torch.bfloat16, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    near(x.grad, layer.dense().float().sum(0, keepdim=True))


@pytest.mark.parametrize("bits", BITS)
def test_a_layer_that_is_stored_the_other_way_round(bits: int) -> None:
    torch.manual_seed(0)
    layer = Conv1D(48, 64).requires_grad_(False)
    found = packed(layer, bits, 32)
    assert (found.out_features, found.in_features) == (48, 64)
    assert (dense_of(found) - dense_of(layer)).abs().max() < layer.weight.abs().max() / 2 ** (bits - 2)
    x = torch.randn(5, 64)
    near(found(x), naive(found, x))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_weight_takes_its_bits_before_and_after_a_forward(bits: int, dtype: torch.dtype) -> None:
    layer = packed(plain(bias=False, dtype=dtype), bits)
    scales = 256 * dtype.itemsize * (1 if bits == 8 else 2 * 512 // 128)

    def held() -> int:
        return sum(one.untyped_storage().nbytes() for one in layer.buffers())

    assert held() == 256 * 512 * bits // 8 + scales
    layer(torch.ones(1, 512, dtype=dtype))
    assert held() == 256 * 512 * bits // 8 + scales


@pytest.mark.parametrize("bits", BITS)
def test_state_is_the_same_after_forwards_and_loads_at_any_time(bits: int) -> None:
    layer, other = (packed(plain(dtype=torch.bfloat16), bits) for _ in range(2))
    fresh = {key: one.clone() for key, one in layer.state_dict().items()}
    x = torch.randn(1, 512, generator=torch.Generator().manual_seed(1)).bfloat16()
    given = layer(x)
    assert all(torch.equal(one, fresh[key]) for key, one in layer.state_dict().items())
    with torch.no_grad():
        other.scales.zero_()
    other(x)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), given)
    other.load_state_dict(fresh, assign=True)
    assert torch.equal(other(x), given)


@pytest.mark.parametrize("bits", BITS)
def test_copies_are_apart(bits: int) -> None:
    layer = packed(plain(dtype=torch.bfloat16), bits)
    x = torch.ones(1, 512).bfloat16()
    given = layer(x)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.scales.zero_()
    assert torch.equal(layer(x), given)
    assert not torch.equal(twin(x), given)


@pytest.mark.parametrize("bits", BITS)
def test_in_another_dtype_the_codes_are_the_same(bits: int) -> None:
    layer = packed(plain(dtype=torch.bfloat16), bits)
    x = torch.randn(2, 512, generator=torch.Generator().manual_seed(1))
    given, codes = layer(x.bfloat16()), layer.grid_codes()[1].clone()
    layer.float()
    assert not layer.fast
    assert torch.equal(layer.grid_codes()[1], codes)
    near(layer(x), naive(layer, x))
    layer.to(torch.bfloat16)
    assert torch.equal(layer(x.bfloat16()), given)


@pytest.mark.parametrize("bits", BITS)
def test_it_goes_to_another_device_in_its_own_order(bits: int) -> None:
    layer = packed(plain(dtype=torch.bfloat16), bits)
    layer(torch.ones(1, 512).bfloat16())
    moved = copy.deepcopy(layer).to("meta")
    assert moved.codes.shape == layer.state_dict()["codes"].shape
    assert not moved.fast


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("bits", BITS)
def test_on_an_accelerator_it_is_decoded(bits: int) -> None:
    layer = packed(plain(dtype=torch.bfloat16), bits)
    x = torch.randn(2, 512, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = naive(layer, x)
    near(layer.cuda()(x.cuda()).cpu(), expected)
    near(packed(plain(dtype=torch.bfloat16).cuda(), bits)(x.cuda()).cpu(), expected)


def test_rows_of_one_grid_are_groups_that_the_kernel_knows() -> None:
    layer = packed(plain(64, 768), 4, 0)
    assert isinstance(layer, GroupedLinear)
    assert layer.group_size == 256
    grid, _ = layer.grid_codes()
    assert torch.equal(grid.scale, grid.scale[:, :1].expand(-1, 3))


def test_zeros_between_codes_are_kept() -> None:
    model = nn.ModuleDict({"layer": plain(4, 8, bias=False)})
    grid = Grid(4, torch.full((4, 2), 0.5), torch.tensor([[1.25, 7.5]] * 4), 4)
    codes = torch.arange(32, dtype=torch.uint8).reshape(4, 8) % 16
    pack_linear(model, "layer", grid, codes)
    found, again = model["layer"].grid_codes()
    assert torch.equal(again, codes)
    torch.testing.assert_close(found.zero, grid.zero)
    torch.testing.assert_close(model["layer"].dense(), grid.values(codes))


def test_grids_that_no_layer_holds_are_refused() -> None:
    codes = torch.zeros(4, 8, dtype=torch.uint8)
    for grid, words in [
        (Grid(8, torch.ones(4, 2), torch.full((4, 2), 128.0), 4), "8 bits are stored with one scale a row"),
        (Grid(8, torch.ones(4, 1), torch.full((4, 1), 3.0), 8), "8 bits are stored with one scale a row"),
        (Grid(5, torch.ones(4, 1), torch.zeros(4, 1), 8), "5 bits have no packed layer; allowed are 8, 4, 3 and 2"),
    ]:
        with pytest.raises(ModelError, match=words):
            pack_linear(nn.ModuleDict({"layer": plain(4, 8)}), "layer", grid, codes)


def test_eight_bits_reach_from_minus_128_to_127() -> None:
    layer = packed(plain(4, 8), 8)
    assert isinstance(layer, Int8Linear)
    assert layer.codes.dtype == torch.int8
    assert layer.grid_codes()[1].dtype == torch.uint8
    assert "in_features=8, out_features=4" in repr(layer)
