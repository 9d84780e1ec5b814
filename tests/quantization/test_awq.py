"""AWQ: the search written naively, its trap, and what it does with blocks of other kinds."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from contracts.tiny import FULL, tiny, tokens
from pith.core import PithWarning
from pith.quantization.awq import AWQ
from pith.quantization.rtn import RTN
from pith.weights import Calibration, fit_grid, linears, stand_ins, walk, weight_of
from pith.weights.duplicate import duplicate
from pith.weights.packed import PackedLinear

TEXTS = Calibration(tokens(6, 40))


def compressed(method: Any, name: str, texts: Calibration = TEXTS) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return method.compress(tiny(name), texts), [str(one.message) for one in caught]


@torch.no_grad()
def test_the_search_for_gate_and_up_written_naively() -> None:
    model = duplicate(tiny("llama_gqa"))
    stage = next(walk(model, TEXTS))
    block: Any = stage.block
    read: list[torch.Tensor] = []
    stage.observe({block.mlp.gate_proj: read.append})
    x = torch.cat(read)
    plain, size = block.mlp(x), x.abs().mean(0)
    errors, scales = [], []
    for index in range(20):
        scale = (size ** (index / 20)).clamp(min=1e-4)
        scale = scale / (scale.max() * scale.min()) ** 0.5
        gate, up = (
            fit_grid(layer.weight * scale, 2, 16).nearest(layer.weight * scale) / scale
            for layer in (block.mlp.gate_proj, block.mlp.up_proj)
        )
        given = (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ block.mlp.down_proj.weight.T
        errors.append((given - plain).square().mean())
        scales.append(scale)
    best = scales[int(torch.stack(errors).argmin())]
    smaller, _ = compressed(AWQ(bits=2, group_size=16), "llama_gqa")
    before, after = (m.model.layers[0].post_attention_layernorm.weight for m in (tiny("llama_gqa"), smaller))
    assert torch.allclose(before / best, after, rtol=1e-4)
    assert not torch.allclose(before, after, rtol=1e-2)


def test_without_factors_and_cuts_it_is_rounding() -> None:
    """With the exponent 0 alone and no cuts."""
    mine, _ = compressed(AWQ(bits=3, group_size=32, ratios=1, clip=False), "llama_mha")
    plain = RTN(bits=3, group_size=32).compress(tiny("llama_mha"))
    assert torch.equal(mine(tokens(2, 9)).logits, plain(tokens(2, 9)).logits)


@pytest.mark.parametrize("name", [*FULL, "gemma3", "mistral_sliding", "gpt_oss", "qwen3_next"])
def test_nearer_to_the_dense_model_than_rounding(name: str) -> None:
    """On each architecture, on the texts that it read."""
    dense = tiny(name)(TEXTS.tokens).logits
    mine, _ = compressed(AWQ(bits=3, group_size=32), name)
    plain = RTN(bits=3, group_size=32).compress(tiny(name))
    errors = [(model(TEXTS.tokens).logits - dense).square().mean() for model in (mine, plain)]
    assert errors[0] < errors[1]


def test_groups_of_one_sign_do_not_saturate() -> None:
    """The authors' grid gives every weight between 1 and 2 the code 15, which is about 1."""
    model = duplicate(tiny("llama_mha"))
    layer = model.model.layers[0].mlp.gate_proj
    weight = 1 + torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    layer.weight = torch.nn.Parameter(weight)
    smaller = AWQ(bits=4, group_size=16, ratios=1, clip=False).compress(model, TEXTS)
    packed = smaller.model.layers[0].mlp.gate_proj
    assert isinstance(packed, PackedLinear)
    assert (packed.dense() - weight).abs().max() < 0.07  # half a step of 2 / 15
    low, high = weight.unflatten(1, (-1, 16)).aminmax(dim=-1)
    theirs = (high - low) / 15
    zero = (-(low / theirs).round()).clamp(0, 15)
    codes = ((weight.unflatten(1, (-1, 16)) / theirs[..., None]).round() + zero[..., None]).clamp(0, 15)
    assert (codes == 15).float().mean() > 0.9


def test_a_norm_before_experts_is_named_and_experts_without_tokens_are_rounded() -> None:
    few = Calibration(tokens(1, 2))
    smaller, said = compressed(AWQ(bits=4, group_size=16), "olmoe", few)
    assert any("layers.0.post_attention_layernorm" in text and "no factors" in text for text in said)
    assert any("no token of the calibration reached" in text and "rounded to nearest" in text for text in said)
    names = {name for name, _ in linears(smaller)}
    assert names == {"lm_head"}


def test_layers_outside_the_blocks_are_rounded() -> None:
    smaller, _ = compressed(AWQ(bits={"lm_head": 8, "*.v_proj": 3}, skip=""), "llama_gqa")
    assert {name.rpartition(".")[2] for name in stand_ins(smaller)} == {"lm_head", "v_proj"}


def test_layers_that_stay_take_factors_too() -> None:
    """Where only some of those that read a norm are rounded, the block gives the same but for the rounding."""
    smaller, _ = compressed(AWQ(bits={"*.gate_proj": 8}, clip=False), "llama_gqa")
    dense, mine = (model(TEXTS.tokens).logits for model in (tiny("llama_gqa"), smaller))
    assert (dense - mine).norm() < 0.05 * dense.norm()
    up = weight_of(smaller.model.layers[0].mlp.up_proj)
    assert not torch.equal(up, weight_of(tiny("llama_gqa").model.layers[0].mlp.up_proj))


def test_fewer_tokens_compared_is_another_search_that_works() -> None:
    mine, _ = compressed(AWQ(bits=2, group_size=16, compared=1), "llama_gqa", Calibration(tokens(60, 64)))
    assert mine(tokens(1, 5)).logits.isfinite().all()


def test_the_original_stays() -> None:
    before = {key: value.clone() for key, value in tiny("llama_gqa").state_dict().items()}
    compressed(AWQ(bits=2, group_size=16), "llama_gqa")
    assert all(torch.equal(before[key], value) for key, value in tiny("llama_gqa").state_dict().items())


@pytest.mark.parametrize("after", [0, 1])
def test_it_goes_on_where_it_was_stopped(tmp_path: Any, after: int) -> None:
    class Stop(Exception):  # noqa: N818
        pass

    def stop(what: str, done: int, total: int) -> None:
        if done > after:
            raise Stop

    method = AWQ(bits=3, group_size=32)
    with pytest.raises(Stop):
        method.compress(tiny("llama_mha"), Calibration(TEXTS.tokens, stop, tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        resumed = method.compress(tiny("llama_mha"), Calibration(TEXTS.tokens, None, tmp_path))
        whole = method.compress(tiny("llama_mha"), TEXTS)
    assert torch.equal(resumed(tokens(2, 9)).logits, whole(tokens(2, 9)).logits)
