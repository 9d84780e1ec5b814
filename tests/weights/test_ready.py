from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pith
from contracts.compressors import COMPRESSORS, llama, small, texts
from pith.core import InputError, ModelError
from pith.models.export import export
from pith.weights import of_tokens
from pith.weights.duplicate import duplicate

LINE = (
    r"^LlamaForCausalLM has 9 tensors that are not in memory .*, such as model\.layers\.2\.\S+; load it without device"
)


def offloaded() -> Any:
    """A model as a device map leaves it that puts one block on the disk: its parameters are on "meta"."""
    model = duplicate(llama())
    for module in model.model.layers[2].modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(torch.empty_like(parameter, device="meta"))
    return model


@pytest.mark.parametrize("name", COMPRESSORS)
def test_offloaded_layers_are_refused_before_any_work(name: str) -> None:
    told: list[Any] = []
    with pytest.raises(ModelError, match=LINE):
        pith.compress(offloaded(), small(name), texts(progress=lambda *what: told.append(what)))
    assert not told


def test_offloaded_layers_are_not_written(tmp_path: Path) -> None:
    model = offloaded()
    with pytest.raises(ModelError, match=LINE):
        export(model, None, tmp_path / "out")
    made = copy.deepcopy(pith.compress(llama(), "rtn(bits=4, group_size=32)"))
    made.to("meta")
    with pytest.raises(ModelError, match="tensors that are not in memory"):
        made.save_pretrained(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_whole_model_on_meta_is_refused() -> None:
    with pytest.raises(ModelError, match="not in memory"):
        pith.compress(copy.deepcopy(llama()).to("meta"), "rtn(bits=8)")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", COMPRESSORS)
def test_weights_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    model = copy.deepcopy(llama())
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = bad
    with pytest.raises(
        ModelError, match=r"hold NaN or infinite values: 1 of 6144 in model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        pith.compress(model, small(name), texts())


def test_large_weights_are_finite() -> None:
    model = copy.deepcopy(llama())
    with torch.no_grad():
        model.lm_head.weight.fill_(3e38)
    assert (pith.compress(model, "rtn(bits=8)").lm_head.weight == 3e38).all()


@pytest.mark.parametrize("name", COMPRESSORS)
def test_texts_that_the_model_cannot_read_are_refused(name: str) -> None:
    if not pith.methods()[name].calibrated:  # type: ignore[attr-defined]
        pytest.skip(f"{name} reads none")
    for token in (97, -1):
        with pytest.raises(InputError, match=rf"holds token {token}; LlamaForCausalLM has the tokens 0 to 96"):
            pith.compress(llama(), small(name), of_tokens([[1, 2, token]]))
    with pytest.raises(InputError, match="sequences of 1 token; allowed are 2 or more"):
        pith.compress(llama(), small(name), of_tokens([[1], [2]]))
