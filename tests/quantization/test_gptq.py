"""GPTQ end to end: what each block reads, what is rounded instead, and what its options change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pith
from contracts.compressors import gpt2, llama, texts
from contracts.tiny import tiny
from pith.core import ModelError, PithWarning
from pith.quantization.gptq import GPTQ
from pith.weights import PackedLinear, block_linears, fit_grid, weight_of
from pith.weights.columns import quantized_by_columns
from pith.weights.duplicate import duplicate
from pith.weights.hessian import SecondMoments
from pith.weights.linears import set_weight

SETS = [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]


def packed(model: Any) -> dict[str, PackedLinear]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, PackedLinear)}


@torch.no_grad()
def naive(model: Any, sequential: bool, **options: Any) -> dict[str, torch.Tensor]:
    """Whole forwards for every set of layers, each hooked, with all that was rounded before in place."""
    model, inputs, found = duplicate(model), texts().tokens, {}
    for index in range(len(model.model.layers)):
        block = {name: layer for name, layer in block_linears(model).items() if f".{index}." in name}
        sets = SETS if sequential else [[name for names in SETS for name in names]]
        for names in sets:
            own = {name: layer for name, layer in block.items() if name.endswith(tuple(names))}
            read = {name: SecondMoments(weight_of(layer).shape[1]) for name, layer in own.items()}
            hooks = [
                layer.register_forward_pre_hook(lambda module, args, one=read[name]: one.add(args[0].flatten(0, 1)))
                for name, layer in own.items()
            ]
            model(input_ids=inputs)
            for hook in hooks:
                hook.remove()
            for name, layer in own.items():
                grid, codes = quantized_by_columns(
                    weight_of(layer), read[name].hessian(4), lambda some: fit_grid(some, 3, 32), **options
                )
                set_weight(layer, grid.values(codes))
                found[name] = grid.values(codes)
    return found


@pytest.mark.parametrize("sequential", [False, True])
def test_every_block_reads_what_the_rounded_ones_before_it_give(sequential: bool) -> None:
    smaller = pith.compress(llama(), f"gptq(bits=3, group_size=32, true_sequential={sequential})", texts())
    expected = naive(llama(), sequential, group_size=32)
    assert packed(smaller).keys() == expected.keys()
    for name, layer in packed(smaller).items():
        if ".0." in name or ".1." in name:  # ties fall either way, and each moves what is read after it
            near = (layer.dense() - expected[name]).abs() < 1e-3
            assert near.float().mean() > 0.97, name


def test_the_outputs_of_the_model_lose_less_than_by_rounding() -> None:
    inputs = texts(8, 64)
    with torch.no_grad():
        expected = llama()(inputs.tokens).logits
        lost = [
            float((pith.compress(llama(), recipe, inputs)(inputs.tokens).logits - expected).square().mean())
            for recipe in ("rtn(bits=3, group_size=32)", "gptq(bits=3, group_size=32)")
        ]
    assert lost[1] < 0.8 * lost[0]


def test_options_change_codes() -> None:
    recipes = ["", ", act_order=True", ", mse=True", ", damping=0.5", ", symmetric=True", ", group_size=16"]
    weights = [
        pith.compress(llama(), f'gptq(bits={{"*.0.self_attn.q_proj": 3}}{more})', texts())
        .model.layers[0]
        .self_attn.q_proj.dense()
        for more in recipes
    ]
    assert all(not torch.equal(weights[0], other) for other in weights[1:])


def test_bits_by_pattern_and_what_is_skipped() -> None:
    recipe = (
        'gptq(bits={"*.down_proj": 8, "*.mlp.*": 2, "*": 4}, group_size=16, skip=("lm_head", "0.self_attn.o_proj"))'
    )
    smaller = pith.compress(llama(), recipe.replace('"0.self_attn', '"*.0.self_attn'), texts())
    first = smaller.model.layers[0]
    assert isinstance(first.self_attn.o_proj, nn.Linear)
    assert [first.self_attn.q_proj.bits, first.mlp.up_proj.bits] == [4, 2]
    grid, _ = first.mlp.down_proj.grid_codes()
    assert (grid.bits, grid.scale.shape[1]) == (8, 1)


def test_layers_outside_the_blocks_are_rounded_to_nearest() -> None:
    smaller = pith.compress(llama(), 'gptq(bits=4, group_size=32, skip="")', texts())
    expected = pith.compress(llama(), 'rtn(bits=4, group_size=32, skip="")')
    assert torch.equal(smaller.lm_head.dense(), expected.lm_head.dense())
    assert not torch.equal(smaller.model.layers[0].mlp.up_proj.dense(), expected.model.layers[0].mlp.up_proj.dense())


@pytest.mark.parametrize("sequential", [False, True])
def test_experts_that_no_token_reached_are_rounded_to_nearest_and_named(sequential: bool) -> None:
    with pytest.warns(PithWarning, match=r"no token of the calibration reached .*experts.*rounded to nearest"):
        smaller = pith.compress(
            tiny("olmoe"), f"gptq(bits=3, group_size=32, true_sequential={sequential})", texts(1, 2)
        )
    plain = pith.compress(tiny("olmoe"), "rtn(bits=3, group_size=32)")
    same = {
        name: torch.equal(layer.dense(), packed(plain)[name].dense())
        for name, layer in packed(smaller).items()
        if ".0.mlp.experts" in name
    }
    assert any(same.values())
    assert not all(same.values())


def test_weights_that_lie_the_other_way_round() -> None:
    inputs = texts(8, 64)
    with torch.no_grad():
        expected = gpt2()(inputs.tokens).logits
        lost = [
            float((pith.compress(gpt2(), recipe, inputs)(inputs.tokens).logits - expected).square().mean())
            for recipe in ("rtn(bits=2, group_size=32)", "gptq(bits=2, group_size=32)")
        ]
    assert lost[1] < lost[0]


def test_numbers_that_are_not_finite_are_refused_with_the_layers_name() -> None:
    model = duplicate(llama())
    with torch.no_grad():
        model.model.layers[3].mlp.gate_proj.weight = nn.Parameter(torch.full((96, 64), 3e38))
    with pytest.raises(ModelError, match=r"gptq: model\.layers\.3\.mlp\.down_proj: .*finite"):
        GPTQ(bits={"*.down_proj": 4}).compress(model, texts())
