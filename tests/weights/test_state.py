from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import pith
from contracts.compressors import gpt2
from contracts.tiny import tiny, tokens
from pith.weights import set_bias, set_weight, weight_of
from pith.weights.duplicate import duplicate
from pith.weights.state import load_state, state

pytestmark = pytest.mark.filterwarnings("ignore::pith.core.PithWarning")


def put_back(changed: Any, plain: Any, name: str, folder: Path) -> Any:
    """A plain model with one part of a changed one, which went over a file."""
    save_file({key: one.contiguous() for key, one in state(changed, name).items()}, folder / "part")
    load_state(plain, name, load_file(folder / "part"))
    return plain


@pytest.mark.parametrize("architecture", ["llama_gqa", "gpt2"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_packed_layers_come_back(architecture: str, bits: int, tmp_path: Path) -> None:
    model = gpt2() if architecture == "gpt2" else tiny(architecture)
    name = "transformer" if architecture == "gpt2" else "model"
    changed = pith.compress(model, f"rtn(bits={bits}, group_size=32)")
    again = put_back(changed, duplicate(model), name, tmp_path)
    with torch.no_grad():
        assert torch.equal(again(tokens(2, 9)).logits, changed(tokens(2, 9)).logits)


@pytest.mark.parametrize("architecture", ["llama_gqa", "gpt2"])
def test_other_widths_and_biases_come_back(architecture: str, tmp_path: Path) -> None:
    model = gpt2() if architecture == "gpt2" else tiny(architecture)
    changed = duplicate(model)
    block, names = (
        ("transformer.h.0", ("mlp.c_fc", "mlp.c_proj"))
        if architecture == "gpt2"
        else ("model.layers.0", ("mlp.up_proj", "mlp.down_proj"))
    )
    up, down = (changed.get_submodule(f"{block}.{name}") for name in names)
    set_weight(down, weight_of(down)[:, ::2])
    set_weight(up, weight_of(up)[::2])
    set_bias(up, None if architecture == "gpt2" else torch.arange(len(weight_of(up))).float())
    again = put_back(changed, duplicate(model), block, tmp_path)
    assert torch.equal(weight_of(again.get_submodule(f"{block}.{names[1]}")), weight_of(down))
    found = again.get_submodule(f"{block}.{names[0]}")
    assert torch.equal(weight_of(found), weight_of(up))
    assert (found.bias is None) if architecture == "gpt2" else torch.equal(found.bias, up.bias)
