"""Turning keys back, for every kind of rotation that the models have."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from contracts.tiny import COMMON, MAKERS, tiny
from pith.attention.rotary import Rotary
from pith.core import ModelError


def attention_of(model: hf.PreTrainedModel) -> torch.nn.Module:
    return next(m for m in model.modules() if type(m).__name__.endswith("Attention") and hasattr(m, "layer_idx"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MAKERS)
def test_unrotate_is_the_inverse(name: str, dtype: torch.dtype) -> None:
    model = tiny(name, dtype)
    types = getattr(model.config, "layer_types", None)
    rotary = Rotary(model, types[-1] if types else None)
    keys = torch.randn(2, 3, 11, 16).to(dtype)
    tables = rotary.tables(torch.randint(0, 4000, (2, 11)), keys)
    module = attention_of(model)
    rotated = rotary.rotate(module, keys, tables)
    assert not torch.allclose(rotated, keys, atol=1e-2)
    back = rotary.unrotate(module, rotated, tables)
    assert (back - keys).abs().max() < (1e-5 if dtype == torch.float32 else 0.03)


def test_a_model_without_rotation_is_refused() -> None:
    model = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(ModelError, match="GPT2LMHeadModel has no rotary embedding"):
        Rotary(model, None)


def test_scaled_tables_are_turned_back_exactly() -> None:
    rope = {
        "rope_type": "yarn",
        "factor": 4.0,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 128,
    }
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON, rope_parameters=rope))
    rotary, keys = Rotary(model, None), torch.randn(1, 2, 5, 16)
    tables = rotary.tables(torch.arange(5)[None], keys)
    assert (tables[0][0, 0] - 1).abs().max() > 0.05
    back = rotary.unrotate(attention_of(model), rotary.rotate(attention_of(model), keys, tables), tables)
    assert (back - keys).abs().max() < 1e-5
