"""Linear layers that GPT-2 stores the other way round: found, changed, packed, saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.pytorch_utils import Conv1D

import pith
from contracts.compressors import gpt2
from contracts.tiny import tokens
from pith.weights import PackedLinear, block_linears, dense_of, linears, set_bias, set_weight, weight_of
from pith.weights.folder import load_folder


def layer(out: int = 24, inputs: int = 40) -> Any:
    torch.manual_seed(0)
    made: Any = Conv1D(out, inputs)
    torch.nn.init.normal_(made.bias)
    return made


def test_the_weight_is_seen_as_rows_of_outputs() -> None:
    conv, x = layer(), torch.randn(3, 40)
    weight = weight_of(conv)
    assert weight.shape == (24, 40)
    assert weight.data_ptr() == conv.weight.data_ptr()
    assert torch.equal(dense_of(conv), weight)
    assert torch.allclose(conv(x), x @ weight.T + conv.bias, atol=1e-6)


def test_a_new_weight_and_bias_of_any_width() -> None:
    conv, x, weight, bias = layer(), torch.randn(3, 16), torch.randn(8, 16), torch.randn(8)
    set_weight(conv, weight)
    set_bias(conv, bias)
    assert (conv.nf, conv.nx) == (8, 16)
    assert conv.weight.is_contiguous()
    assert torch.allclose(conv(x), x @ weight.T + bias, atol=1e-5)


def test_all_four_of_a_block_are_found() -> None:
    found = block_linears(gpt2())
    assert [name.removeprefix("transformer.h.0.") for name in list(found)[:4]] == [
        "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj",
    ]  # fmt: skip
    assert len(found) == 8


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.filterwarnings("ignore::pith.PithWarning")
def test_packed_layers_are_the_nearest_to_the_turned_weight(bits: int, dtype: torch.dtype, tmp_path: Path) -> None:
    plain = gpt2().to(dtype) if dtype == torch.float32 else pith.weights.duplicate.duplicate(gpt2()).to(dtype)
    smaller, prompt = pith.compress(plain, f"rtn(bits={bits}, group_size=32)"), tokens(2, 11)
    for name, linear in linears(plain, "lm_head"):
        packed, weight = smaller.get_submodule(name), weight_of(linear).float()
        assert isinstance(packed, PackedLinear)
        assert packed.dense().shape == weight.shape
        rows = weight if bits == 8 else weight.unflatten(1, (-1, 32))
        wide = (rows.amax(-1) - rows.amin(-1)) if bits < 8 else 2 * rows.abs().amax(-1)
        step = (wide / (2**bits - 1)).clamp(min=1e-6).unsqueeze(-1)
        error = (packed.dense().float() - weight).abs().view_as(rows)
        assert (error <= step * (1.02 if dtype == torch.bfloat16 else 0.51) + 1e-3 * (dtype == torch.bfloat16)).all()
        x = torch.randn(5, weight.shape[1], dtype=dtype)
        own = x.float() @ packed.dense().float().T + linear.bias.float()
        assert torch.allclose(packed(x).float(), own, rtol=2e-2, atol=1e-5 if dtype == torch.float32 else 2e-2)
    given = smaller(prompt).logits
    smaller.save_pretrained(tmp_path)
    assert torch.equal(load_folder(tmp_path)(prompt).logits, given)
