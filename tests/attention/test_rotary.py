"""Turning keys back, for every kind of rotation that the models have."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers as hf
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import pith
from contracts.tiny import COMMON, MAKERS, tiny, tokens
from pith.attention.rotary import Probe, Rotary, Turn, fit_rotary
from pith.attention.self_check import check
from pith.core import ModelError

MLA = {
    **COMMON,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "head_dim": 8,
}

PARTS = {
    "stablelm: the first quarter of a head": lambda: hf.StableLmConfig(**COMMON, num_key_value_heads=2),
    "phi: the first half": lambda: hf.PhiConfig(**COMMON, num_key_value_heads=2),
    "minicpm3: the last channels": lambda: hf.MiniCPM3Config(**MLA),
    "deepseek_v3: the last channels, neighbours made halves": lambda: hf.DeepseekV3Config(
        **MLA, n_routed_experts=4, moe_intermediate_size=32, n_group=1, topk_group=1, num_experts_per_tok=2
    ),
    "deepseek_v2: complex tables": lambda: hf.DeepseekV2Config(
        **MLA, n_routed_experts=4, moe_intermediate_size=32, n_group=1, topk_group=1, num_experts_per_tok=2
    ),
    "nanochat: backward": lambda: hf.NanoChatConfig(**COMMON, num_key_value_heads=2),
    "gemma4: a function of one tensor": lambda: hf.Gemma4TextConfig(
        **COMMON,
        num_key_value_heads=2,
        head_dim=16,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=97,
        layer_types=["sliding_attention", "full_attention"],
    ),
}


def built(config: hf.PretrainedConfig) -> hf.PreTrainedModel:
    torch.manual_seed(0)
    return hf.AutoModelForCausalLM.from_config(config).eval()


def rotary_of(model: hf.PreTrainedModel, index: int = -1) -> Rotary:
    return check(model).of(index % model.config.num_hidden_layers)


@torch.no_grad()
def keys_at(model: hf.PreTrainedModel, index: int, places: torch.Tensor) -> torch.Tensor:
    """The keys that the model itself attends with for the same token at each of these places."""
    keys: dict[int, torch.Tensor] = {}

    def recorded(module, query, key, *args, **kwargs):
        keys[module.layer_idx] = key
        return sdpa_attention_forward(module, query, key, *args, **kwargs)

    hf.AttentionInterface.register("recorded", recorded)
    model.set_attn_implementation("recorded")
    model(tokens(1, 1).expand(len(places), 1), position_ids=places[:, None], use_cache=True)
    model.set_attn_implementation("sdpa")
    return keys[index]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MAKERS)
def test_unrotate_is_the_inverse(name: str, dtype: torch.dtype) -> None:
    if name == "mistral_sliding":
        return  # none of whose layers is served
    model = tiny(name, dtype)
    rotary = rotary_of(model)
    keys = torch.randn(2, 3, 11, 16).to(dtype)
    tables = rotary.tables(torch.randint(0, 4000, (2, 11)), keys)
    rotated = rotary.rotate(keys, tables)
    assert not torch.allclose(rotated, keys, atol=1e-2)
    back = rotary.unrotate(rotated, tables)
    assert (back - keys).abs().max() < (1e-5 if dtype == torch.float32 else 0.03)


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_a_key_is_placed_where_the_model_would_put_it(make) -> None:
    model = built(make())
    index = model.config.num_hidden_layers - 1
    rotary = rotary_of(model)
    places = torch.tensor([0, 3, 18, 200])
    keys = keys_at(model, index, places)
    assert (keys - keys[:1]).abs().max() > 0.05
    raw = rotary.unrotate(keys[1:2], rotary.tables(places[None, 1:2], keys))
    placed = rotary.rotate(raw.expand_as(keys), rotary.tables(places[:, None], keys))
    torch.testing.assert_close(placed, keys, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "recipe", ["streaming_llm(budget=12)", "token_select", "inf_llm", "expected_attention(budget=8)"]
)
@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_methods_that_place_keys_run(make, recipe: str) -> None:
    model = built(make())
    with pith.applied(model, recipe):
        out = model.generate(tokens(1, 40), max_new_tokens=3, do_sample=False)
    assert out.shape == (1, 43)


def test_where_nothing_is_dropped_the_text_is_the_models_own() -> None:
    model = built(PARTS["minicpm3: the last channels"]())
    prompt = tokens(1, 21)
    with torch.no_grad():
        want = model(prompt).logits
        with pith.applied(model, "token_select"):  # holds keys before their rotation and rotates what it reads
            got = model(prompt, use_cache=True).logits
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_a_model_without_rotation_is_refused() -> None:
    model = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(ModelError, match="GPT2LMHeadModel has no rotary embedding"):
        rotary_of(model)


def test_a_layer_without_rotation_is_refused() -> None:
    config = hf.Cohere2Config(
        **COMMON, num_key_value_heads=2, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
    )
    with (
        pytest.raises(ModelError, match="layer 1 of Cohere2ForCausalLM has no rotary positions"),
        pith.applied(built(config), "streaming_llm(budget=8)"),
    ):
        raise AssertionError("applied")


def test_a_model_that_keeps_positions_to_itself_is_refused() -> None:
    with (
        pytest.raises(ModelError, match="PersimmonForCausalLM does not hand position_ids"),
        pith.applied(built(hf.PersimmonConfig(**COMMON)), "streaming_llm(budget=8)"),
    ):
        raise AssertionError("applied")


def test_frequencies_that_depend_on_the_length_are_refused() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON, rope_parameters=rope))
    with pytest.raises(ModelError, match="'dynamic' frequencies"):
        rotary_of(model)


def test_a_rotation_that_is_not_the_embeddings_is_refused() -> None:
    model = tiny("llama_gqa")
    places = torch.tensor([[0], [1], [7]])
    torch.manual_seed(0)
    probe = Probe(1, places, torch.randn(3, 4, 1, 16), torch.randn(3, 2, 1, 16), True)
    with pytest.raises(ModelError, match="layer 1 of LlamaForCausalLM does not rotate its keys and queries"):
        fit_rotary(model, None, probe)
    with pytest.raises(ModelError, match="layer 1 of LlamaForCausalLM has no rotary positions"):
        fit_rotary(model, None, dataclasses.replace(probe, key=probe.key[:1].expand(3, -1, -1, -1)))


def test_scaled_tables_are_turned_back_exactly() -> None:
    rope = {
        "rope_type": "yarn",
        "factor": 4.0,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 128,
    }
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON, rope_parameters=rope))
    rotary, keys = rotary_of(model), torch.randn(1, 2, 5, 16)
    tables = rotary.tables(torch.arange(5)[None], keys)
    assert (tables[0][0, 0] - 1).abs().max() > 0.05
    back = rotary.unrotate(rotary.rotate(keys, tables), tables)
    assert (back - keys).abs().max() < 1e-5


def test_layers_that_rotate_alike_share_what_one_forward_computes() -> None:
    rotations = check(tiny("llama_gqa"))
    assert rotations.of(0) is rotations.of(1)
    assert rotations.of(0) is not check(tiny("llama_gqa")).of(0)
    assert rotations.of(0).turn == Turn(0, 8)
