"""Heads and channels that are removed are gone for real: logits, caches, configurations and folders are right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf

from contracts.structures import PLAIN, check, made, own
from contracts.tiny import COMMON, tokens
from pith.core import ModelError
from pith.weights import (
    blocks,
    drop_part,
    heads,
    keep_blocks,
    keep_channels,
    keep_heads,
    parts,
    set_bias,
    settle,
    stand_ins,
)
from pith.weights.dropped import NoAttention
from pith.weights.duplicate import duplicate
from pith.weights.linears import weight_of


@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_channels_are_those_of_a_model_with_the_others_silenced(name: str, tmp_path: Path) -> None:
    model, silenced, kept = own(name), own(name), torch.tensor([3, 5, 8, 90])
    keep_channels(blocks(model)[1], kept)
    mask = torch.zeros(96)
    mask[kept] = 1
    down = parts(blocks(silenced)[1]).down
    down.weight = torch.nn.Parameter(down.weight * mask)
    assert torch.allclose(check(model, tmp_path), silenced(tokens(2, 22)).logits, atol=1e-4)
    assert parts(blocks(model)[1]).up.weight.shape == (4, 64)
    assert blocks(model)[1].mlp.intermediate_size == 4


@pytest.mark.parametrize("name", [*PLAIN, "gpt_oss", "moe"])
@torch.no_grad()
def test_heads_are_those_of_a_model_with_the_others_silenced(name: str, tmp_path: Path) -> None:
    model, silenced = own(name), own(name)
    keep_heads(model, 2, torch.tensor([1]))
    o = blocks(silenced)[2].self_attn.o_proj
    mask = torch.zeros(64)
    mask[32:] = 1  # two query heads of 16 read the second key-value head
    o.weight = torch.nn.Parameter(o.weight * mask)
    assert torch.allclose(check(model, tmp_path), silenced(tokens(2, 22)).logits, atol=1e-4)
    assert heads(model) == heads(made(name))  # the configuration still says what the others have
    cache = model(tokens(1, 9), use_cache=True).past_key_values
    assert cache.layers[2].keys.shape[1] == 1


@torch.no_grad()
def test_without_heads_and_channels_the_bias_is_left(tmp_path: Path) -> None:
    model, none = own("llama"), torch.tensor([], dtype=torch.int64)
    biases = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    found = parts(blocks(model)[0])
    set_bias(found.o, biases[0])
    set_bias(found.down, biases[1])
    keep_heads(model, 0, none)
    keep_channels(blocks(model)[0], none)
    check(model, tmp_path)
    states = torch.randn(2, 5, 64)
    assert torch.allclose(blocks(model)[0](states), states + biases.sum(0), atol=1e-6)
    assert isinstance(blocks(model)[0].self_attn, NoAttention)


@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_equal_widths_are_written_into_the_configuration(name: str, tmp_path: Path) -> None:
    model = own(name)
    for index, block in enumerate(blocks(model)):
        keep_heads(model, index, torch.tensor([1]))
        keep_channels(block, torch.arange(10, 50))
    unsettled = duplicate(model)
    settle(model)
    assert not stand_ins(model)
    config = model.config.get_text_config()
    assert (config.intermediate_size, config.num_key_value_heads, config.num_attention_heads) == (40, 1, 2)
    logits = check(model, tmp_path / "plain")
    assert torch.equal(check(unsettled, tmp_path / "narrow"), logits)


def test_widths_that_differ_are_left_to_pith(tmp_path: Path) -> None:
    model = own("llama")
    keep_channels(blocks(model)[0], torch.arange(40))
    settle(model)
    assert model.config.intermediate_size == 96
    assert list(stand_ins(model)) == ["model.layers.0.mlp"]
    check(model, tmp_path)
    with pytest.raises(ValueError, match="pith"):
        hf.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_widths_that_a_configuration_refuses_are_left_to_pith(tmp_path: Path) -> None:
    """Llama wants the hidden size to be a multiple of the number of heads."""
    torch.manual_seed(0)
    shape = {**COMMON, "num_attention_heads": 8, "num_hidden_layers": 2}
    model = duplicate(hf.LlamaForCausalLM(hf.LlamaConfig(**shape, num_key_value_heads=4, head_dim=8)).eval())
    for index in range(2):
        keep_heads(model, index, torch.tensor([0, 2, 3]))
    settle(model)
    assert len(stand_ins(model)) == 2
    assert heads(model) == (8, 4, 8)
    check(model, tmp_path)


def test_norms_over_all_heads_are_refused() -> None:
    config = hf.Olmo2Config(**COMMON, num_key_value_heads=4)
    with pytest.raises(ModelError, match=r"self_attn\.q_norm\.weight of shape \[64\] belongs to no single head of 16"):
        keep_heads(hf.Olmo2ForCausalLM(config), 0, torch.tensor([1]))


@torch.no_grad()
def test_nothing_is_written_into_shared_tensors() -> None:
    before = {name: tensor.clone() for name, tensor in made("llama").state_dict().items()}
    model = own("llama")
    drop_part(model, 0, "attention")
    keep_heads(model, 1, torch.tensor([1]))
    keep_channels(blocks(model)[1], torch.arange(7))
    keep_blocks(model, [0, 1, 3])
    for name, tensor in made("llama").state_dict().items():
        assert torch.equal(tensor, before[name])
    assert weight_of(parts(blocks(model)[1]).up).shape == (7, 64)
    assert made("llama").config.num_hidden_layers == 4
