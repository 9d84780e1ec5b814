from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import pith
from contracts.compressors import llama, small, texts
from contracts.tiny import tokens
from pith.core import ModelError
from pith.core.folders import MANIFEST
from pith.weights.folder import FILE, load_folder

pytestmark = pytest.mark.filterwarnings("ignore::pith.core.PithWarning")


def kept_recipe(name: str) -> Any:
    return pith.compress(llama(), small(name) if "(" not in name else name, texts(rows=2, length=16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_buffers_are_those_of_plain_transformers_in_any_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "plain")
    kept_recipe("rtn(bits=8)").save_pretrained(tmp_path / "packed")
    ours = load_folder(tmp_path / "packed", dtype)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=dtype)
    assert ours.dtype == theirs.dtype == ours.config.dtype == dtype
    buffers = dict(ours.named_buffers())
    expected = dict(theirs.named_buffers())
    assert any("inv_freq" in name for name in expected)
    for name, buffer in expected.items():
        assert buffers[name].dtype == buffer.dtype
        assert torch.equal(buffers[name], buffer)
    for name, parameter in theirs.named_parameters():
        if name in dict(ours.named_parameters()):
            assert torch.equal(ours.get_parameter(name), parameter)


def test_tensors_in_a_dtype_of_their_own_keep_it(tmp_path: Path) -> None:
    model = copy.deepcopy(kept_recipe("rtn(bits=8)")).bfloat16()
    norm = model.model.layers[1].input_layernorm
    norm.weight.data = norm.weight.data.float() + 1e-4
    model.save_pretrained(tmp_path)
    for dtype in (None, torch.float16):
        again = load_folder(tmp_path, dtype).model.layers[1].input_layernorm.weight
        assert again.dtype == torch.float32
        assert torch.equal(again, norm.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_what_transformers_keeps_in_float32_stays_so(dtype: torch.dtype, tmp_path: Path) -> None:
    model = kept_recipe("rtn(bits=8)")
    model.save_pretrained(tmp_path)
    kept, type(model)._keep_in_fp32_modules_strict = type(model)._keep_in_fp32_modules_strict, {"input_layernorm"}
    plain = type(llama())
    before, plain._keep_in_fp32_modules_strict = plain._keep_in_fp32_modules_strict, {"input_layernorm"}
    try:
        again = load_folder(tmp_path, dtype)
    finally:
        plain._keep_in_fp32_modules_strict, type(model)._keep_in_fp32_modules_strict = before, kept
    layer = again.model.layers[0]
    assert layer.input_layernorm.weight.dtype == torch.float32
    assert layer.post_attention_layernorm.weight.dtype == dtype


@pytest.mark.parametrize("name", ["rtn(bits=8)", "rtn(bits=4, group_size=32)", "reallm", "llm_drop"])
def test_each_swapped_dtype_or_shape_is_one_line(name: str, tmp_path: Path) -> None:
    kept_recipe(name).save_pretrained(tmp_path)
    (tmp_path / MANIFEST).unlink()  # a folder whose writer made the hashes too
    held = load_file(tmp_path / FILE)
    with torch.no_grad():
        expected = load_folder(tmp_path)(tokens(1, 9)).logits
    kinds: dict[tuple[str, torch.dtype], str] = {}
    for key, tensor in held.items():
        kinds.setdefault((key.rpartition(".")[2], tensor.dtype), key)
    swaps = {
        torch.float32: (torch.bfloat16, torch.float64, torch.int32), torch.float16: (torch.bfloat16, torch.float32),
        torch.uint8: (torch.int8, torch.int64), torch.int8: (torch.uint8, torch.float32),
    }  # fmt: skip
    for (_, dtype), key in kinds.items():
        for other in swaps[dtype]:
            save_file({**held, key: held[key].to(other)}, tmp_path / FILE)
            with pytest.raises(ModelError, match=f"do not fit: {key} is {str(other)[6:]}") as caught:
                load_folder(tmp_path)
            assert len(str(caught.value)) < 300
        save_file({**held, key: held[key].flatten()[:-1].clone()}, tmp_path / FILE)
        with pytest.raises(ModelError, match="do not fit"):
            load_folder(tmp_path)
    save_file(held, tmp_path / FILE)
    with torch.no_grad():
        assert torch.equal(load_folder(tmp_path)(tokens(1, 9)).logits, expected)


@pytest.mark.parametrize("dtypes", [[], {"x": "nothing"}, {"x": 1}, {"x": "nn"}, "float32"])
def test_damaged_dtypes_are_one_line(dtypes: Any, tmp_path: Path) -> None:
    kept_recipe("rtn(bits=8)").save_pretrained(tmp_path)
    (tmp_path / MANIFEST).unlink()
    said = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**said, "dtypes": dtypes}))
    with pytest.raises(ModelError) as caught:
        load_folder(tmp_path)
    assert "\n" not in str(caught.value)
