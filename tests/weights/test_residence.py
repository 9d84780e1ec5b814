from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pith
from contracts.compressors import COMPRESSORS, llama, small, texts
from pith.core import ModelError
from pith.models.export import export
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
