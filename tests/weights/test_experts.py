"""Experts that Transformers fuses, as linear layers: the same outputs, found, packed, saved and fused again."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import pith
from contracts.tiny import COMMON, tiny, tokens
from pith.core import ModelError
from pith.weights import SplitExperts, fuse_experts, linears, split_experts, walk
from pith.weights.calibration import of_tokens
from pith.weights.duplicate import duplicate
from pith.weights.folder import load_folder
from pith.weights.packed import GroupedLinear

MOE = {**COMMON, "num_key_value_heads": 2, "head_dim": 16, "num_experts_per_tok": 2}


@cache
def mixtral() -> Any:
    return made(hf.MixtralForCausalLM(hf.MixtralConfig(**MOE, num_local_experts=4)))


@cache
def qwen3_moe() -> Any:
    config = hf.Qwen3MoeConfig(**MOE, num_experts=4, moe_intermediate_size=32, norm_topk_prob=True)
    return made(hf.Qwen3MoeForCausalLM(config))


def made(model: Any) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1) if parameter.ndim > 1 else parameter.fill_(1.0)
    return model.eval()


MAKERS: dict[str, Callable[[], Any]] = {
    "olmoe": lambda: tiny("olmoe"),
    "gpt_oss": lambda: tiny("gpt_oss"),
    "qwen3_next": lambda: tiny("qwen3_next"),
    "mixtral": mixtral,
    "qwen3_moe": qwen3_moe,
}
"""Transposed, interleaved and with biases (gpt_oss); beside an expert that all tokens read (qwen3_next)."""


def split(name: str, skip: str = "") -> Any:
    model = duplicate(MAKERS[name]())
    split_experts(model, skip)
    return model


def experts_of(model: Any) -> list[SplitExperts]:
    return [module for module in model.modules() if isinstance(module, SplitExperts)]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("rows", [1, 3])
def test_outputs_stay_the_same(name: str, rows: int) -> None:
    plain, model, prompt = MAKERS[name](), split(name), tokens(rows, 23)
    assert len(experts_of(model)) == 2
    assert (model(prompt).logits - plain(prompt).logits).abs().max() < 2e-5 * plain(prompt).logits.abs().max()


@pytest.mark.parametrize("name", MAKERS)
def test_every_expert_has_linear_layers_over_the_same_tensors(name: str) -> None:
    plain, model = MAKERS[name](), split(name)
    fused = plain.model.layers[0].mlp.experts
    found = dict(linears(model))
    for index in range(4):
        for matrix in ("gate_up_proj", "down_proj"):
            own: Any = found[f"model.layers.0.mlp.experts.{index}.{matrix}"]
            theirs = getattr(fused, matrix)[index]
            assert torch.equal(own.weight, theirs.T if name == "gpt_oss" else theirs)
            assert own.weight.untyped_storage().data_ptr() == theirs.untyped_storage().data_ptr()
            assert own.weight.shape == (own.out_features, own.in_features)
    assert not isinstance(fused, SplitExperts), "the model that came in stays fused"


@pytest.mark.parametrize("name", MAKERS)
def test_splitting_is_taken_back(name: str) -> None:
    plain, model = MAKERS[name](), split(name)
    fuse_experts(model)
    assert not experts_of(model)
    theirs = plain.state_dict()
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in theirs.items()}
    assert all(torch.equal(tensor, theirs[k]) for k, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.filterwarnings("ignore::pith.PithWarning")
def test_experts_are_packed_saved_and_loaded(name: str, tmp_path: Path) -> None:
    smaller, prompt = pith.compress(MAKERS[name](), "rtn(bits=4, group_size=32)"), tokens(2, 9)
    packed = [m for e in experts_of(smaller) for pair in e.layers() for m in pair.values()]
    assert len(packed) == 2 * 4 * 2
    assert all(isinstance(layer, GroupedLinear) for layer in packed)
    smaller.save_pretrained(tmp_path / "model")
    again = load_folder(tmp_path / "model").eval()
    assert torch.equal(again(prompt).logits, smaller(prompt).logits)
    written = smaller.generate(prompt, max_new_tokens=5, do_sample=False)
    assert written.shape == (2, 14)
    fuse_experts(smaller)
    assert len(experts_of(smaller)) == 2, "packed experts cannot be fused"


def test_packed_experts_are_those_of_the_fused_tensor() -> None:
    """Of interleaved, transposed weights with biases: every expert's own, decoded by hand."""
    plain = tiny("gpt_oss")
    smaller = pith.compress(plain, "rtn(bits=8)")
    theirs, own = plain.model.layers[1].mlp.experts, experts_of(smaller)[1].layers()
    for index in range(4):
        packed: Any = own[index]["down_proj"]
        weight = theirs.down_proj[index].T
        assert (packed.dense() - weight).abs().max() <= weight.abs().max() / 127
        assert torch.equal(packed.bias, theirs.down_proj_bias[index])


def test_skipped_experts_stay_fused() -> None:
    model = split("olmoe", "*.experts.*")
    assert not experts_of(model)
    smaller = pith.compress(tiny("olmoe"), 'rtn(bits=4, group_size=32, skip=("lm_head", "*.experts.*"))')
    assert not experts_of(smaller)
    assert isinstance(smaller.model.layers[0].self_attn.q_proj, GroupedLinear)


def test_only_experts_with_tokens_read() -> None:
    """What each expert reads is what the router sends it; one without tokens is not run."""
    model = split("olmoe")
    experts, rows = experts_of(model)[0], torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    read: dict[int, torch.Tensor] = {}
    for index, pair in enumerate(experts.layers()):
        pair["gate_up_proj"].register_forward_pre_hook(lambda _, args, index=index: read.update({index: args[0]}))
    chosen = torch.tensor([[0, 2], [2, 0], [2, 3], [0, 2], [3, 2], [2, 4]])  # 4 is past the last: none
    weights = torch.rand(6, 2, generator=torch.Generator().manual_seed(1))
    given = experts(rows, chosen, weights)
    assert sorted(read) == [0, 2, 3]
    assert torch.equal(read[3], rows[[2, 4]])
    expected = torch.zeros_like(rows)
    for token in range(6):
        for choice, index in enumerate(chosen[token].tolist()):
            if index < 4:
                pair: Any = experts.layers()[index]
                gate, up = pair["gate_up_proj"](rows[token]).chunk(2)
                inner = torch.nn.functional.silu(gate) * up
                expected[token] += weights[token, choice] * pair["down_proj"](inner)
    assert torch.allclose(given, expected, atol=1e-5)


def test_blocks_are_walked_and_resumed(tmp_path: Path) -> None:
    model, calibration = split("olmoe"), of_tokens(tokens(2, 16).tolist(), folder=tmp_path)
    with torch.no_grad():
        for stage in walk(model, calibration):
            layer = model.get_submodule(f"{stage.name}.mlp.experts.1.down_proj")
            layer.weight = torch.nn.Parameter(layer.weight * 2)
        again = split("olmoe")
        assert not list(walk(again, calibration)), "every block is kept"
        assert torch.equal(again(tokens(1, 9)).logits, model(tokens(1, 9)).logits)


def test_experts_in_an_unknown_order_are_refused() -> None:
    text = hf.Llama4TextConfig(
        **COMMON, num_key_value_heads=2, head_dim=16, intermediate_size_mlp=32, num_local_experts=2,
        interleave_moe_layer_step=1,
    )  # fmt: skip
    with pytest.raises(ModelError, match="Llama4TextExperts with gate_up_proj, down_proj in one tensor") as caught:
        pith.compress(hf.Llama4ForCausalLM(text), "rtn(bits=4)")
    assert "\n" not in str(caught.value)


def test_experts_that_stay_dense_lie_as_files_hold_them(tmp_path: Path) -> None:
    """Those of GPT-OSS are turned; the model gives bit for bit what it gives once it is loaded."""
    smaller, prompt = pith.compress(tiny("gpt_oss"), 'rtn(bits={"*.q_proj": 8})'), tokens(2, 19)
    assert len(experts_of(smaller)) == 2
    assert all(parameter.is_contiguous() for parameter in smaller.parameters())
    smaller.save_pretrained(tmp_path / "model")
    assert torch.equal(load_folder(tmp_path / "model").eval()(prompt).logits, smaller(prompt).logits)
    assert not isinstance(tiny("gpt_oss").model.layers[0].mlp.experts, SplitExperts)
