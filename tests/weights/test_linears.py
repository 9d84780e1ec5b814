from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from contracts.compressors import gpt2, llama
from contracts.tiny import tiny
from pith.core import ModelError
from pith.weights import block_linears, blocks, heads, linears, parts, set_bias, set_weight, weight_of


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), Conv1D(4, 6)], ids=["linear", "conv1d"])
def test_a_weight_is_out_by_in_whichever_way_it_lies(layer: nn.Module) -> None:
    layer.requires_grad_(False)
    x = torch.randn(3, 6)
    torch.testing.assert_close(layer(x), x @ weight_of(layer).T + layer.bias)
    assert weight_of(layer).data_ptr() == layer.weight.data_ptr()
    new = torch.randn(2, 3)
    set_weight(layer, new)
    set_bias(layer, torch.ones(2))
    torch.testing.assert_close(layer(x[:, :3]), x[:, :3] @ new.T + 1)
    assert layer.weight.is_contiguous()


def test_a_bias_comes_and_goes() -> None:
    layer = nn.Linear(3, 2, bias=False).bfloat16()
    set_bias(layer, torch.ones(2))
    assert layer.bias.dtype == torch.bfloat16
    set_bias(layer, None)
    assert layer.bias is None
    assert "bias" not in layer.state_dict()


def test_linear_layers_are_found_by_name_and_in_order() -> None:
    names = [name for name, _ in linears(llama())]
    assert len(names) == 4 * 7 + 1
    assert names[-1] == "lm_head"
    assert [name for name, _ in linears(llama(), ("*.mlp.*", "q_proj"))][:3] == [
        f"model.layers.0.self_attn.{letter}_proj" for letter in "kvo"
    ]
    assert list(block_linears(llama())) == names[:-1]
    assert len(block_linears(gpt2())) == 2 * 4
    with pytest.raises(ModelError, match="have no plain linear layer to change"):
        block_linears(llama(), "*")


def test_the_parts_of_a_block() -> None:
    found = parts(blocks(llama())[0])
    block = blocks(llama())[0]
    assert (found.q, found.o, found.gate, found.down) == (
        block.self_attn.q_proj, block.self_attn.o_proj, block.mlp.gate_proj, block.mlp.down_proj
    )  # fmt: skip
    assert (found.attention_norm, found.mlp_norm) == (block.input_layernorm, block.post_attention_layernorm)
    assert not found.output_norms
    gemma = blocks(tiny("gemma3"))[0]
    assert parts(gemma).mlp_norm is gemma.pre_feedforward_layernorm
    assert parts(gemma).output_norms
    for name, words in [("gpt_neox", "has no self_attn"), ("olmoe", "up_proj"), ("phi3", "q_proj")]:
        with pytest.raises(ModelError, match=words) as caught:
            parts(blocks(tiny(name))[0])
        assert "\n" not in str(caught.value)


def test_heads_are_counted() -> None:
    assert heads(llama()) == (4, 2, 16)
    assert heads(tiny("gpt_neox")) == (4, 4, 16)
