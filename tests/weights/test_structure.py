"""Blocks and parts that are removed are gone for real: logits, caches, configurations and folders are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from contracts.structures import DROPPING, MAKERS, check, made, moe, own, without
from contracts.tiny import tokens
from pith.core import ModelError
from pith.weights import blocks, drop_part, keep_blocks, stand_ins


@pytest.mark.parametrize("kept", [[0, 2, 3], [1], [2, 3]], ids=str)
@pytest.mark.parametrize("name", list(MAKERS))
def test_kept_blocks_are_a_plain_model(name: str, kept: list[int], tmp_path: Path) -> None:
    model = own(name)
    types = list(getattr(model.config.get_text_config(), "layer_types", None) or [None] * 4)
    keep_blocks(model, kept)
    logits = check(model, tmp_path)
    assert not stand_ins(model)
    assert torch.allclose(logits, without(name, {i: {"block"} for i in range(4) if i not in kept}), atol=1e-5)
    config = model.config.get_text_config()
    assert config.num_hidden_layers == len(blocks(model)) == len(kept)
    assert list(getattr(config, "layer_types", None) or [None] * len(kept)) == [types[index] for index in kept]
    assert made(name).config.get_text_config().num_hidden_layers == 4


def test_blocks_without_any_attention_are_refused() -> None:
    with pytest.raises(ModelError, match=r"blocks \[0, 2\] of Qwen3NextForCausalLM have no attention"):
        keep_blocks(own("qwen3_next"), [0, 2])


def test_lists_of_the_configuration_follow() -> None:
    model = own("moe")
    keep_blocks(model, [0, 3])
    assert model.config.mlp_only_layers == [1]
    model = own("smollm3")
    keep_blocks(model, [1, 2])
    assert model.config.no_rope_layers == [0, 1]
    assert [block.self_attn.use_rope for block in blocks(model)] == [0, 1]


@pytest.mark.parametrize("kept", [[], [4], [-1, 0]], ids=str)
def test_blocks_that_are_not_there_cannot_be_kept(kept: list[int]) -> None:
    with pytest.raises(ModelError, match=r"of 4 cannot be kept; allowed are some of 0 to 3"):
        keep_blocks(own("llama"), kept)


def test_what_a_configuration_cannot_say_is_refused() -> None:
    """Every second block has experts: without the first, the model that would be loaded has them elsewhere."""
    torch.manual_seed(0)
    with pytest.raises(
        ModelError, match=r"Qwen3MoeForCausalLM without blocks \[0\] is no plain model: block 0 has mlp"
    ):
        keep_blocks(moe(decoder_sparse_step=2), [1, 2, 3])
    scaled = hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=32, n_layer=3, n_head=2, scale_attn_by_inverse_layer_idx=True))
    with pytest.raises(ModelError, match=r"without blocks \[0\] is no plain model: block 0 has attn\.scaling"):
        keep_blocks(scaled, [1, 2])


DROPS = {
    "first attention": {0: {"attention"}},
    "second attention": {1: {"attention"}},
    "attention of one type": {0: {"attention"}, 2: {"attention"}},
    "all attention": {index: {"attention"} for index in range(4)},
    "mixed": {0: {"mlp"}, 1: {"attention"}, 3: {"attention", "mlp"}},
}


@pytest.mark.parametrize("gone", list(DROPS.values()), ids=list(DROPS))
@pytest.mark.parametrize("name", DROPPING)
def test_dropped_parts_give_nothing_and_the_cache_is_right(name: str, gone: Any, tmp_path: Path) -> None:
    model = own(name)
    for index, which in gone.items():
        for part in sorted(which):
            drop_part(model, index, part)
    logits = check(model, tmp_path)
    assert torch.allclose(logits, without(name, gone), atol=1e-5)
    lost = sum("attention" in which for which in gone.values())
    cache = model(tokens(1, 9), use_cache=True).past_key_values
    assert sorted(layer.get_seq_length() for layer in cache.layers) == [0] * lost + [9] * (4 - lost)
    assert cache.get_seq_length() == (9 if lost < 4 else 0)


@torch.no_grad()
def test_padded_rows_are_what_they_are_alone() -> None:
    model = own("gemma3")
    drop_part(model, 0, "attention")
    row = tokens(1, 20)
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.int64), row], 1)
    batch, mask = torch.cat([padded, tokens(1, 25)]), torch.ones(2, 25, dtype=torch.int64)
    mask[0, :5] = 0
    ask = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    together = model.generate(batch, attention_mask=mask, **ask)
    assert torch.equal(together[0, 25:], model.generate(row, **ask)[0, 20:])


def test_a_part_is_dropped_once_and_only_where_it_has_a_norm() -> None:
    model = own("llama")
    drop_part(model, 2, "mlp")
    with pytest.raises(ModelError, match="the mlp of block 2 of LlamaForCausalLM was dropped already"):
        drop_part(model, 2, "mlp")
    for name in ("gpt_neox", "gpt2", "qwen3_next"):
        with pytest.raises(ModelError, match=r"block 0 of \w+ has no self_attn behind a norm of its own"):
            drop_part(own(name), 0, "attention")


@pytest.mark.parametrize("kept", [[0, 2, 3], [0, 1]], ids=str)
def test_blocks_may_go_after_parts(kept: list[int], tmp_path: Path) -> None:
    model = own("gemma3")
    drop_part(model, 0, "attention")
    keep_blocks(model, kept)
    logits = check(model, tmp_path)
    gone = {0: {"attention"}, **{index: {"block"} for index in range(4) if index not in kept}}
    assert torch.allclose(logits, without("gemma3", gone), atol=1e-5)
