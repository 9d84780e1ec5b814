"""A model's hash names its configuration and weights, and nothing else."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf

from pith.models import model_hash


def make(**changes: int) -> hf.LlamaForCausalLM:
    """A model whose embedding has more elements than are looked at."""
    shape = {"vocab_size": 5000, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1}
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**shape | {"num_attention_heads": 2} | changes))


def test_equal_models_have_one_hash(tmp_path: Path) -> None:
    model = make()
    assert len(model_hash(model)) == 16
    assert model_hash(model) == model_hash(make())
    model.save_pretrained(tmp_path)
    assert model_hash(hf.AutoModelForCausalLM.from_pretrained(tmp_path)) == model_hash(model)


def test_a_weight_changes_it() -> None:
    model, before = make(), model_hash(make())
    with torch.no_grad():
        model.model.norm.weight[3] += 1e-3
    assert model_hash(model) != before


def test_training_changes_it_in_sampled_tensors_too() -> None:
    model, before = make(), model_hash(make())
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1.01)
    assert model_hash(model) != before


def test_configuration_and_dtype_change_it() -> None:
    assert model_hash(make(max_position_embeddings=64)) != model_hash(make())
    assert model_hash(make().to(torch.bfloat16)) != model_hash(make())
