"""Which layers read the same, and that moving factors leaves a block's outputs as they are."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from contracts.tiny import FULL, tiny, tokens
from pith.weights import Calibration, split_experts, walk, weight_of
from pith.weights.duplicate import duplicate
from pith.weights.feeds import feeds, kept, move

ATTENTION, MLP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
EXPECTED = {
    "llama_mha": {ATTENTION, ("o_proj",), MLP, ("down_proj",)},
    "llama_gqa": {ATTENTION, MLP, ("down_proj",)},
    "qwen3": {ATTENTION, MLP, ("down_proj",)},
    "gemma3": {ATTENTION, MLP, ("down_proj",)},
    "phi3": {("qkv_proj",), ("gate_up_proj",), ("down_proj",)},
    "gpt_neox": {("query_key_value",), ("dense_h_to_4h",)},
}


def last(names: object) -> tuple[str, ...]:
    return tuple(name.rpartition(".")[2] for name in names)  # type: ignore[attr-defined]


@torch.no_grad()
@pytest.mark.parametrize("name", EXPECTED)
def test_moving_factors_changes_nothing(name: str) -> None:
    model = duplicate(tiny(name))
    plain = tiny(name)(tokens(3, 20)).logits
    for stage in walk(model, Calibration(tokens(3, 20))):
        found, refused = feeds(stage)
        assert {last(feed.readers) for feed in found if feed.source} == EXPECTED[name]
        assert refused == []
        for feed in found:
            if feed.source is not None:
                width = weight_of(next(iter(feed.readers.values()))).shape[1]
                move(feed.source, feed.readers.values(), torch.linspace(0.3, 3, width))
    moved = model(tokens(3, 20)).logits
    assert (moved - plain).norm() < 1e-4 * plain.norm()
    scaled = next(iter(next(feed for feed in found if feed.source is not None).readers))
    assert not torch.equal(weight_of(model.get_submodule(scaled)), weight_of(tiny(name).get_submodule(scaled)))


@torch.no_grad()
def test_a_norm_that_a_router_reads_is_refused_and_experts_take_factors_of_their_own() -> None:
    model = duplicate(tiny("olmoe"))
    split_experts(model)
    stage = next(walk(model, Calibration(tokens(3, 20))))
    found, refused = feeds(stage)
    assert refused == ["model.layers.0.post_attention_layernorm"]
    sources = {last(feed.readers) for feed in found if feed.source is not None}
    assert ("down_proj",) in sources
    assert ("gate_up_proj",) not in sources


@torch.no_grad()
@pytest.mark.parametrize(("act", "taken"), [("relu", True), ("gelu", False)])
def test_between_two_layers_only_what_keeps_a_factor(act: str, taken: bool) -> None:
    config = hf.OPTConfig(
        vocab_size=97, hidden_size=64, ffn_dim=96, num_hidden_layers=1, num_attention_heads=4, word_embed_proj_dim=64,
        activation_function=act, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = hf.OPTForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    plain = model(tokens(2, 16)).logits
    (stage,) = walk(model, Calibration(tokens(2, 16)))
    found, _ = feeds(stage)
    assert any(last(feed.readers) == ("fc2",) and feed.source is not None for feed in found) is taken
    for feed in found:
        if feed.source is not None:
            width = weight_of(next(iter(feed.readers.values()))).shape[1]
            move(feed.source, feed.readers.values(), torch.linspace(0.3, 3, width))
    assert (model(tokens(2, 16)).logits - plain).norm() < 1e-4 * plain.norm()


@torch.no_grad()
def test_every_layer_is_in_one_feed_and_looking_changes_nothing() -> None:
    for name in FULL:
        model = duplicate(tiny(name))
        before = {key: value.data_ptr() for key, value in model.state_dict().items()}
        stage = next(walk(model, Calibration(tokens(2, 12))))
        found, _ = feeds(stage)
        names = [one for feed in found for one in feed.readers]
        assert len(names) == len(set(names))
        assert {key: value.data_ptr() for key, value in model.state_dict().items()} == before


def test_parameters_come_back() -> None:
    layer = torch.nn.Linear(4, 4)
    weight = layer.weight
    with kept([layer]):
        layer.weight = torch.nn.Parameter(torch.zeros(2, 4))
    assert layer.weight is weight
