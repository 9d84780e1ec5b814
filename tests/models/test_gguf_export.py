"""A GGUF file holds the codes as they are packed, and Transformers reads the same model out of it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Qwen2Config, Qwen3Config

import pith
from contracts.tiny import tiny
from pith.core import InputError, ModelError, PithWarning, Recipe
from pith.models import builtin, export, load
from pith.models.export import require_possible
from pith.models.gguf_export import FILE, blocks
from pith.weights import PackedLinear

TOKENIZER = builtin()[1]
SIZES: dict[str, Any] = {
    "vocab_size": len(TOKENIZER) + 3,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


def model(config: Any = LlamaConfig, dtype: torch.dtype = torch.float32, tied: bool = True, **more: Any) -> Any:
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config(**SIZES, tie_word_embeddings=tied, **more), dtype=dtype)
    return made.eval()


def packed(recipe: str, dense: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        return pith.compress(dense, recipe)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_are_those_of_the_library(bits: int, symmetric: bool) -> None:
    """Its own decoder gives what the codes stand for, in each of the three formats."""
    torch.manual_seed(0)
    codes = torch.randint(0, 2**bits, (3, 64), dtype=torch.uint8)
    scale = torch.rand(3, 2).half().float()
    zero = torch.full((3, 2), 2.0 ** (bits - 1)) if symmetric or bits == 8 else torch.randint(0, 16, (3, 2)).float()
    kind, data = blocks(codes, scale, zero, bits)
    assert kind == ("Q8_0" if bits == 8 else "Q4_0" if symmetric else "Q4_1")
    found = gguf.quants.dequantize(data.numpy(), gguf.GGMLQuantizationType[kind])
    least = (scale * zero).half().float() if kind == "Q4_1" else scale * zero
    expected = codes.float() * scale.repeat_interleave(32, 1) - least.repeat_interleave(32, 1)
    assert np.allclose(found, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        ("rtn(bits=4, group_size=32)", "Q4_1"),
        ("rtn(bits=4, group_size=32, symmetric=True)", "Q4_0"),
        ("rtn(bits=4, group_size=0)", "Q4_1"),
        ("rtn(bits=8)", "Q8_0"),
        ('rtn(bits={"*.down_proj": 8, "*": 4}, group_size=32)', "Q4_1"),
    ],
)
def test_transformers_reads_the_same_model(recipe: str, kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    ours = packed(recipe, model(dtype=dtype, tied=dtype == torch.float32))
    written = export(ours, TOKENIZER, tmp_path / "out", "gguf")
    assert (written.format, written.apart <= (0.01 if dtype == torch.float32 else 0.1)) == ("gguf", True)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".gguf", ".json"}
    there = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "out" / FILE).tensors}
    assert there["blk.0.attn_q.weight"].tensor_type.name == kind
    assert ("output.weight" in there) == (dtype == torch.bfloat16), "a tied head is stored once"
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", gguf_file=FILE, dtype=torch.float32)
    for name, layer in ours.named_modules():
        if isinstance(layer, PackedLinear):
            read, meant = theirs.get_submodule(name).weight, layer.dense().float()
            assert (read - meant).abs().max() <= (2e-3 if dtype == torch.float32 else 2e-2) * meant.abs().max()


@pytest.mark.parametrize(("config", "head_dim"), [(Qwen2Config, 16), (Qwen3Config, 128)])
def test_other_types_are_read_too(config: Any, head_dim: int, tmp_path: Path) -> None:
    ours = packed("rtn(bits=8)", model(config, head_dim=head_dim))
    export(ours, TOKENIZER, tmp_path / "out", "gguf")
    loaded = load(str(tmp_path / "out"), "float32")
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        found, meant = loaded.model(tokens).logits, ours(tokens).logits
    assert (found - meant).norm() <= 0.01 * meant.norm()


def test_the_tokenizer_is_read_back(tmp_path: Path) -> None:
    export(packed("rtn(bits=8)", model()), TOKENIZER, tmp_path / "out", "gguf")
    again = AutoTokenizer.from_pretrained(tmp_path / "out", gguf_file=FILE)
    text = "def read(path):\n    return open(path).read()  # apple is 4821."
    assert again(text).input_ids == TOKENIZER(text).input_ids
    assert again.eos_token == TOKENIZER.eos_token


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ("rtn(bits=3, group_size=32)", "holds weights of 8 and of 4 bits; those of .* have 3; .* format pith"),
        ("rtn(bits=4, group_size=16)", "groups of a multiple of 32 inputs; .* in groups of 16"),
    ],
)
def test_what_it_cannot_hold_is_refused_before_any_work(recipe: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=why):
        require_possible(model(), Recipe.parse(recipe), "gguf", TOKENIZER)
    with pytest.raises(ModelError, match=why):
        export(packed(recipe, model()), TOKENIZER, tmp_path / "out", "gguf")
    assert not any(tmp_path.iterdir())


def test_models_without_a_place_in_the_file_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.parse("rtn(bits=8)")
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    for one, why in (
        (tiny("gpt_neox"), "is of the type gpt_neox"),
        (model(attention_bias=True), "no place for attention_bias=True"),
        (model(rope_parameters=rope), "no place for positions of the kind linear"),
        (model(hidden_act="gelu"), "no place for the activation gelu"),
        (
            model(Qwen3Config, head_dim=16),
            "no place for heads of 16 numbers, where readers take those of qwen3 for 128",
        ),
    ):
        with pytest.raises(ModelError, match=why):
            require_possible(one, recipe, "gguf", TOKENIZER)
    with pytest.raises(ModelError, match="byte-level BPE"):
        require_possible(model(), recipe, "gguf", None)
    monkeypatch.setattr("pith.models.gguf_export.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install gguf"):
        require_possible(model(), recipe, "gguf", TOKENIZER)
