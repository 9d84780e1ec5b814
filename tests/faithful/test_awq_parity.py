"""AWQ against numbers that the authors' code gave: factors, what they were moved into, where groups are cut, codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from faithful.ties import outcomes
from pith.quantization.awq import AWQ
from pith.weights import PackedLinear, Stage, of_tokens, walk, weight_of
from pith.weights.clip import clipped, makes_logits
from pith.weights.feeds import feeds, move
from pith.weights.hessian import moments

FIXTURE = json.loads((Path(__file__).parent / "awq.json").read_text())
GROUP = 32


def model(kv_heads: int) -> Any:
    """The model that the fixture was made with: norms and inputs uneven, biases everywhere in the attention."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 16}
    llama = hf.LlamaForCausalLM(
        hf.LlamaConfig(vocab_size=97, num_hidden_layers=1, num_key_value_heads=kv_heads, attention_bias=True, **sizes)
    ).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in llama.named_parameters():
            if parameter.ndim >= 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.08)
            elif "norm" in name:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 4 + 0.1)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return llama


TOKENS = of_tokens(torch.randint(2, 97, (4, 16), generator=torch.Generator().manual_seed(1)).tolist())


SHARES = [1 - step / 20 for step in range(10)]
"""Of the largest weight of a group, where the authors' code tries to cut."""


def moved(case: dict[str, Any]) -> tuple[Stage, Any]:
    """Return the block with the authors' factors moved as theirs are."""
    (stage,) = walk(llama := model(case["kv_heads"]), TOKENS)
    block = llama.model.layers[0]
    for source, readers, scale in case["scales"]:
        move(block.get_submodule(source), [block.get_submodule(name) for name in readers], torch.tensor(scale))
    return stage, block


@torch.no_grad()
@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: f"{c['bits']}-{c['kv_heads']}")
def test_factors_norms_biases_and_codes(case: dict[str, Any]) -> None:
    """Codes are equal but where a tie decides: see `faithful.ties`."""
    smaller = AWQ(bits=case["bits"], group_size=GROUP).compress(model(case["kv_heads"]), TOKENS)
    block = smaller.model.layers[0]
    assert torch.allclose(block.input_layernorm.weight, torch.tensor(case["norm"]), rtol=1e-4)
    assert torch.allclose(block.self_attn.v_proj.bias, torch.tensor(case["v_bias"]), rtol=1e-4)
    stage, theirs = moved(case)
    layers = {name: theirs.get_submodule(name) for name in case["codes"]}
    read, settled, groups = moments(stage, layers), 0, 0
    for name, rows in case["codes"].items():
        layer = block.get_submodule(name)
        assert isinstance(layer, PackedLinear)
        mine = layer.grid_codes()[1][: len(rows)]
        expected = torch.tensor([[int(code, 16) for code in row] for row in rows])
        shares = [1.0] if makes_logits(name) else SHARES
        found = outcomes(weight_of(layers[name])[: len(rows)], read[name].matrix, case["bits"], GROUP, shares)
        sure = found.settled()
        differ = (mine != expected).unflatten(1, (-1, GROUP)).any(-1)
        assert not (differ & sure).any()
        assert found.allow(mine).all()
        assert found.allow(expected).all()
        off = expected.clone()
        off[:, ::GROUP] += torch.where(off[:, ::GROUP] > 0, -1, 1)
        assert not (found.allow(off) & sure).any(), "a wrong code is seen"
        settled, groups = settled + int(sure.sum()), groups + sure.numel()
    assert settled > groups / 2


@torch.no_grad()
@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda c: f"{c['bits']}-{c['kv_heads']}")
def test_where_groups_are_cut(case: dict[str, Any]) -> None:
    """With the authors' factors moved as theirs are; cuts are equal but where a tie decides."""
    stage, block = moved(case)
    layers = {name: block.get_submodule(name) for name in case["clips"]}
    read = moments(stage, layers)
    for name, theirs in case["clips"].items():
        weight, fit = weight_of(layers[name]), AWQ(group_size=GROUP)
        cut = clipped(weight, read[name].matrix, lambda w, fit=fit: fit.grid(w, case["bits"]), "together")
        reach = cut.unflatten(1, (-1, GROUP)).abs().amax(-1)[:12]
        bound = torch.tensor(theirs).view(12, -1)
        found = outcomes(weight[:12], read[name].matrix, case["bits"], GROUP, SHARES)
        sure = found.settled_reach()
        assert sure.float().mean() > 0.25
        assert torch.allclose(reach[sure], bound[sure], rtol=1e-4)
        assert found.allow_reach(reach).all()
        assert found.allow_reach(bound).all()
        assert not found.allow_reach(bound * 1.03).any(), "a wrong cut is seen"
        assert (cut != weight).any()


@torch.no_grad()
def test_values_before_outputs_only_where_each_query_head_has_its_own() -> None:
    for case in FIXTURE["cases"]:
        (stage,) = walk(model(case["kv_heads"]), TOKENS)
        mine = {
            tuple(name.removeprefix("model.layers.0.") for name in feed.readers)
            for feed in feeds(stage)[0]
            if feed.source
        }
        assert mine == {tuple(readers) for _, readers, _ in case["scales"]}
