"""Bytes that weights take are known before anything is packed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from contracts.tiny import tiny, tokens
from pith.core import Recipe
from pith.weights import compress
from pith.weights.size import weight_bytes

RECIPES = [
    "rtn(bits=8)", "rtn(bits=4)", "rtn(bits=4, group_size=32)", "rtn(bits=3, group_size=0)",
    "rtn(bits=2, group_size=24)", "rtn(bits=4, skip='')", "rtn(bits={'*.down_proj': 8, '*': 3})",
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama_gqa", "qwen3"])
@pytest.mark.parametrize("text", RECIPES)
def test_predicted_bytes_are_those_in_memory_and_on_disk(
    text: str, name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model, recipe = tiny(name, dtype), Recipe.parse(text)
    predicted = recipe.methods[0].predicted_bytes(model)  # type: ignore[attr-defined]
    smaller = compress(model, recipe)
    rotary = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    assert predicted == weight_bytes(smaller) < weight_bytes(model) or "skip" in text
    with torch.no_grad():
        smaller(tokens(2, 9))
        smaller(tokens(1, 1))
    assert weight_bytes(smaller) == predicted
    smaller.save_pretrained(tmp_path)
    header = int.from_bytes((tmp_path / "pith.safetensors").read_bytes()[:8], "little") + 8
    on_disk = (tmp_path / "pith.safetensors").stat().st_size - header
    assert on_disk == pytest.approx(predicted - rotary, rel=0.01)


def test_a_tied_head_that_is_packed_stays_beside_its_codes() -> None:
    model = tiny("llama_gqa")
    model.config.tie_word_embeddings = True
    model.tie_weights()
    with_head, without = (compress(model, f"rtn(bits=4, skip='{skip}')") for skip in ("", "lm_head"))
    assert weight_bytes(with_head) > weight_bytes(without)
