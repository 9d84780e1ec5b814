"""What would be a wrong result later is found when a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf

from pith.core import ModelError, PithWarning
from pith.models import builtin, load
from pith.weights.ready import require_finite

SHAPE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def model(rows: int = 4096) -> hf.LlamaForCausalLM:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE, vocab_size=rows, max_position_embeddings=64))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_not_finite_are_refused(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    broken = model().to(dtype)
    with torch.no_grad():
        broken.model.layers[0].mlp.down_proj.weight[3, 5] = value
    broken.save_pretrained(tmp_path)
    builtin()[1].save_pretrained(tmp_path)
    with pytest.raises(ModelError) as caught:
        load(str(tmp_path))
    assert "hold NaN or infinite values: 1 of 256 in model.layers.0.mlp.down_proj.weight" in str(caught.value)


def test_values_that_a_dtype_cannot_hold_are_refused(tmp_path: Path) -> None:
    large = model()
    with torch.no_grad():
        large.model.norm.weight.fill_(1e5)
    require_finite(large, "here")
    large.save_pretrained(tmp_path)
    builtin()[1].save_pretrained(tmp_path)
    load(str(tmp_path))
    with pytest.raises(ModelError, match=r"16 of 16 in model\.norm\.weight, as float16"):
        load(str(tmp_path), "float16")


def test_large_values_empty_tensors_and_8_bit_floats() -> None:
    fine = model()
    with torch.no_grad():
        fine.model.norm.weight.fill_(torch.finfo(torch.float32).max)  # a sum of them would be infinite
    fine.register_buffer("empty", torch.empty(0))
    fine.register_buffer("small", torch.ones(4).to(torch.float8_e4m3fn))
    require_finite(fine, "here")
    fine.small = torch.full((4,), float("nan")).to(torch.float8_e4m3fn)
    with pytest.raises(ModelError, match="4 of 4 in small, as float8_e4m3fn"):
        require_finite(fine, "here")


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    model(1000).save_pretrained(tmp_path)
    builtin()[1].save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"has 4096 tokens and the model 1000 rows of embeddings: 3096 tokens have"):
        load(str(tmp_path))


def test_special_tokens_without_a_row_are_told_and_padding_gives_way(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    tokenizer = builtin()[1]
    tokenizer.add_special_tokens({"pad_token": "<padding>", "additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(tmp_path)
    with pytest.warns(PithWarning, match="2 special tokens of .* have no row of embeddings, such as '<image>'"):
        found = load(str(tmp_path))
    batch = found.tokenizer(["import os", "x"], return_tensors="pt", padding=True)
    assert found.model(**batch).logits.isfinite().all()
    tokenizer.add_tokens(["a word of its own"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"has 4099 tokens and the model 4096 rows .* 'a word of its own' \(4098\)"):
        load(str(tmp_path))


def test_a_larger_embedding_than_the_tokenizer_needs_is_fine(tmp_path: Path) -> None:
    model(5000).save_pretrained(tmp_path)
    builtin()[1].save_pretrained(tmp_path)
    assert load(str(tmp_path)).model.get_input_embeddings().weight.shape[0] == 5000
