"""Minitron: scores as the equations say, and a plain model that is a slice of the one that came in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

import pith
from contracts.compressors import llama, texts
from contracts.tiny import tiny, tokens
from pith.core import ModelError
from pith.pruning.minitron import Minitron, activations, best, share
from pith.weights import Calibration
from pith.weights.duplicate import duplicate


def seen(model: Any, name: str, tokens: torch.Tensor) -> torch.Tensor:
    """What a module reads of some texts."""
    found: list[torch.Tensor] = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, args: found.append(args[0]))
    with torch.no_grad():
        model(tokens)
    hook.remove()
    return found[0]


def aggregated(values: torch.Tensor) -> torch.Tensor:
    """L2 over sequences of the mean over tokens of [sequence, token, n]."""
    return torch.stack([row.abs().mean(0) for row in values]).square().sum(0).sqrt()


def scores(model: Any, calibration: Calibration) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return activations(duplicate(model), calibration)


@pytest.mark.parametrize("name", ["llama_mha", "llama_gqa", "qwen3", "gemma3"])
def test_scores_are_the_equations(name: str) -> None:
    model, calibration = tiny(name), texts(rows=130, length=17)  # of 17 tokens, 120 sequences make a batch
    assert len(calibration.batches) == 2
    found, hidden = scores(model, calibration), torch.zeros(64)
    with torch.no_grad():
        states = model(calibration.tokens, output_hidden_states=True).hidden_states
    for index in range(2):
        path = f"model.layers.{index}"
        channels = aggregated(seen(model, f"{path}.mlp.down_proj", calibration.tokens))
        assert torch.allclose(found["channels"][index], channels, rtol=1e-4)
        heads = seen(model, f"{path}.self_attn.o_proj", calibration.tokens).unflatten(-1, (4, 16))
        assert torch.allclose(found["heads"][index], aggregated(heads.norm(dim=-1)), rtol=1e-4)
        for reader in ("self_attn.k_proj", "mlp.up_proj"):
            hidden += aggregated(seen(model, f"{path}.{reader}", calibration.tokens))
        if index == 0:  # the last state that the model gives is normalised
            likeness = torch.cosine_similarity(states[0], states[1], dim=-1)
            assert found["blocks"][0].item() == pytest.approx(1 - likeness.mean().item(), rel=1e-4)
    assert torch.allclose(found["hidden"], hidden, rtol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
def test_the_result_is_a_slice_by_hand(tied: bool) -> None:
    """Of a Llama of four blocks with two query heads for each key-value head."""
    model, calibration, prompt = llama(tied), texts(), tokens(2, 21)
    smaller = pith.compress(model, "minitron(channels=0.6, heads=0.5, hidden=0.6, blocks=0.7)", calibration)
    found = scores(model, calibration)
    blocks = sorted(found["blocks"].argsort(descending=True)[:3].tolist())
    hidden = found["hidden"].argsort(descending=True)[:40].sort().values
    config = hf.LlamaConfig(
        **{
            **model.config.to_dict(), "hidden_size": 40, "intermediate_size": 56, "num_attention_heads": 2,
            "num_key_value_heads": 2, "num_hidden_layers": 3, "head_dim": 16,
        }
    )  # fmt: skip
    hand, state = hf.LlamaForCausalLM(config).eval(), model.state_dict()
    own = {name: tensor[hidden] if name.endswith("norm.weight") else tensor for name, tensor in state.items()}
    sliced = {name: own[name] for name in ("model.norm.weight",)}
    sliced |= {name: own[name][:, hidden] for name in ("model.embed_tokens.weight", "lm_head.weight")}
    for new, old in enumerate(blocks):
        channels = found["channels"][old].argsort(descending=True)[:56].sort().values
        pairs = found["heads"][old].view(2, 2).argmax(1) + torch.tensor([0, 2])  # the better head of each group
        rows = torch.cat([torch.arange(16) + 16 * head for head in pairs.tolist()])
        for name, tensor in own.items():
            if (part := name.removeprefix(f"model.layers.{old}.")) == name:
                continue
            if "q_proj" in name:
                tensor = tensor[rows][:, hidden]
            elif "o_proj" in name:
                tensor = tensor[hidden][:, rows]
            elif "k_proj" in name or "v_proj" in name:
                tensor = tensor[:, hidden]
            elif "down_proj" in name:
                tensor = tensor[hidden][:, channels]
            elif "mlp" in name:
                tensor = tensor[channels][:, hidden]
            sliced[f"model.layers.{new}.{part}"] = tensor
    hand.load_state_dict(sliced, strict=True)
    with torch.no_grad():
        assert torch.equal(smaller(prompt).logits, hand(prompt).logits)
    assert type(smaller) is hf.LlamaForCausalLM
    assert (smaller.lm_head.weight is smaller.model.embed_tokens.weight) == tied
    assert smaller.model.layers[0].self_attn.num_key_value_groups == 1
    assert smaller.generate(prompt, max_new_tokens=3, do_sample=False).shape == (2, 24)


def test_heads_without_groups_go_with_their_keys() -> None:
    model, calibration = tiny("llama_mha"), texts()
    smaller = pith.compress(model, "minitron(channels=1.0, heads=0.5)", calibration)
    config = smaller.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 2, 16)
    kept = scores(model, calibration)["heads"][1].argsort(descending=True)[:2].sort().values.tolist()
    for name in ("q_proj", "k_proj", "v_proj"):
        whole = getattr(model.model.layers[1].self_attn, name).weight.view(4, 16, 64)
        own = getattr(smaller.model.layers[1].self_attn, name).weight.view(2, 16, 64)
        assert torch.equal(own, whole[kept])


def test_biases_and_norms_of_heads_stay_right() -> None:
    """Qwen2 has biases on q, k and v; Qwen3 normalises each head."""
    torch.manual_seed(0)
    config = hf.Qwen2Config(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=2,
    )  # fmt: skip
    biased = hf.Qwen2ForCausalLM(config).eval()
    torch.nn.init.normal_(biased.model.layers[0].self_attn.q_proj.bias)
    for model in (biased, tiny("qwen3")):
        smaller = pith.compress(model, "minitron(channels=0.5, heads=0.5, hidden=0.75)", texts())
        assert torch.isfinite(smaller(tokens(1, 9)).logits).all()
        query = smaller.model.layers[0].self_attn.q_proj
        assert query.weight.shape[0] == smaller.config.num_attention_heads * smaller.config.head_dim
        assert query.bias is None or query.bias.shape == (query.weight.shape[0],)


def test_nothing_is_removed_where_every_share_is_one() -> None:
    smaller = pith.compress(llama(), "minitron(channels=1.0)", texts())
    assert torch.equal(smaller(tokens(1, 9)).logits, llama()(tokens(1, 9)).logits)


@pytest.mark.parametrize(
    ("count", "kept", "multiple", "expected"),
    [(96, 0.667, 8, 64), (96, 0.99, 8, 88), (96, 0.01, 8, 8), (4, 0.75, 1, 3), (2, 0.9, 1, 1), (100, 1.0, 8, 100)],
)
def test_a_share_removes_something_and_leaves_something(count: int, kept: float, multiple: int, expected: int) -> None:
    assert share(count, kept, "channels", multiple) == expected


def test_equal_scores_keep_the_first() -> None:
    assert best(torch.tensor([1.0, 2.0, 1.0, 1.0]), 2).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "recipe", "message"),
    [
        ("gemma3", "minitron(hidden=0.5)", "embed_tokens.scalar_embed_scale follows its widths"),
        ("phi3", "minitron()", "q_proj"),
        ("olmoe", "minitron()", "mlp.up_proj"),
    ],
)
def test_what_cannot_be_narrowed_is_refused(name: str, recipe: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        pith.compress(tiny(name), recipe, texts())
    assert "\n" not in str(caught.value)


def test_stand_ins_are_refused() -> None:
    packed = pith.compress(llama(), "rtn(bits=8)")
    with pytest.raises(ModelError, match="takes plain models"):
        Minitron().compress(packed, texts())


def test_what_activations_say_beats_random_channels() -> None:
    """Before any training, on the built-in model."""
    model, tokenizer = pith.models.builtin()
    calibration = pith.calibration(tokenizer, sequences=4, length=128)
    held = pith.calibration(tokenizer, sequences=7, length=128).tokens
    smaller = pith.compress(model, "minitron(channels=0.25)", calibration)
    at_random, generator = duplicate(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in at_random.model.layers:
            kept = torch.randperm(512, generator=generator)[:128]
            for name in ("gate_proj", "up_proj"):
                linear = getattr(block.mlp, name)
                linear.weight = torch.nn.Parameter(linear.weight[kept])
            block.mlp.down_proj.weight = torch.nn.Parameter(block.mlp.down_proj.weight[:, kept])
        assert smaller(held, labels=held).loss < at_random(held, labels=held).loss - 0.1
