"""What structure removes is removed for real: logits, caches, configurations and folders are right afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import pith
from contracts.tiny import COMMON, hybrid, tokens
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
)  # fmt: skip
from pith.weights.dropped import NoAttention
from pith.weights.duplicate import duplicate
from pith.weights.folder import as_saved, load_folder
from pith.weights.linears import weight_of
from pith.weights.size import weight_bytes

FOUR = {**COMMON, "num_hidden_layers": 4}
TYPES = ["sliding_attention", "full_attention"] * 2


def smollm3() -> hf.PreTrainedModel:
    """One whose layers rotate or not, by a list."""
    return hf.SmolLM3ForCausalLM(
        hf.SmolLM3Config(**FOUR, num_key_value_heads=2, no_rope_layers=[1, 0, 1, 1], use_sliding_window=False)
    )


def gemma3() -> hf.PreTrainedModel:
    return hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(
            **FOUR, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16, sliding_window=16, layer_types=TYPES
        )
    )


def gpt_oss() -> hf.PreTrainedModel:
    model = hf.GptOssForCausalLM(
        hf.GptOssConfig(
            **FOUR, num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=16,
            layer_types=TYPES,
        )
    )  # fmt: skip
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.sinks)
    return model


def moe(**more: Any) -> hf.PreTrainedModel:
    """Experts in some blocks, an MLP in the others."""
    return hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(
            **FOUR, num_key_value_heads=2, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
            **more,
        )
    )  # fmt: skip


def gemma3_composite() -> hf.PreTrainedModel:
    """A language model beside a vision tower, in one configuration."""
    text = {
        **FOUR, "num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16,
        "layer_types": TYPES,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
        "patch_size": 14,
    }  # fmt: skip
    return hf.Gemma3ForConditionalGeneration(
        hf.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    )


MAKERS: dict[str, Callable[[], hf.PreTrainedModel]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**FOUR, num_key_value_heads=2, head_dim=16)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**FOUR, num_key_value_heads=2, head_dim=16)),
    "mistral_sliding": lambda: hf.MistralForCausalLM(
        hf.MistralConfig(**FOUR, num_key_value_heads=2, head_dim=16, sliding_window=16)
    ),
    "gemma3": gemma3,
    "gemma3_composite": gemma3_composite,
    "gpt_oss": gpt_oss,
    "smollm3": smollm3,
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**FOUR, num_key_value_heads=2)),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**FOUR)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=97, n_positions=128, n_embd=64, n_layer=4, n_head=4)),
    "moe": lambda: moe(mlp_only_layers=[1, 3]),
    "qwen3_next": lambda: hybrid(["linear_attention", "full_attention"] * 2),
}
DROPPING = ["llama", "qwen3", "mistral_sliding", "gemma3", "gemma3_composite", "gpt_oss", "smollm3", "phi3", "moe"]
PLAIN = ["llama", "qwen3", "mistral_sliding", "gemma3", "gemma3_composite", "smollm3"]


@cache
def made(name: str) -> Any:
    torch.manual_seed(0)
    model = MAKERS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0) if parameter.ndim >= 2 else parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def own(name: str) -> Any:
    return duplicate(made(name))


@torch.no_grad()
def check(model: Any, folder: Path) -> torch.Tensor:
    """Cache, generation, Pith's cache and folder agree with a forward without a cache; its logits."""
    as_saved(model)
    ids = tokens(2, 22)  # more than the sliding windows
    logits = model(ids, use_cache=False).logits
    out = model(ids[:, :18], use_cache=True)
    steps = [out.logits]
    for index in range(18, 22):
        steps.append(model(ids[:, index : index + 1], past_key_values=out.past_key_values).logits)
    assert torch.allclose(torch.cat(steps, 1), logits, atol=1e-4)
    greedy = ids
    for _ in range(3):
        greedy = torch.cat([greedy, model(greedy, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    ask = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, **ask), greedy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pith.PithWarning)  # of layers with a window
        with pith.applied(model, "snapkv(budget=1.0)"):
            assert torch.equal(model.generate(ids, **ask), greedy)
    model.save_pretrained(folder)
    back = load_folder(folder) if stand_ins(model) else type(model).from_pretrained(folder)
    assert torch.equal(back(ids, use_cache=False).logits, logits)
    assert torch.equal(back.generate(ids, **ask), greedy)
    assert weight_bytes(blocks(back)) == weight_bytes(blocks(model))
    return logits


def without(name: str, gone: dict[int, set[str]]) -> torch.Tensor:
    """The logits of the whole model in which parts of blocks give nothing; "block" passes by."""
    model, handles = made(name), []
    names = {"attention": ("self_attn",), "mlp": ("mlp",)}
    norms = {"attention": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"}

    def nothing(module: Any, args: Any, output: Any) -> Any:
        return (output[0] * 0, *output[1:]) if isinstance(output, tuple) else output * 0

    def pass_by(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    for index, which in gone.items():
        block = blocks(model)[index]
        for part in which:
            if part == "block":
                handles.append(block.register_forward_hook(pass_by, with_kwargs=True))
                continue
            behind = norms[part] if hasattr(block, "post_feedforward_layernorm") else names[part][0]
            handles.append(getattr(block, behind).register_forward_hook(nothing))
    with torch.no_grad():
        logits = model(tokens(2, 22), use_cache=False).logits
    for handle in handles:
        handle.remove()
    return logits


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
    "last attention": {2: {"attention"}, 3: {"attention"}},
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
