"""A GGUF file is loaded as Transformers' own loader loads it, alone, or refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import pytest
import torch
import transformers as hf

from models import ggufs
from pith.core import ModelError
from pith.models import builtin, export, load, model_hash, tokenizer_hash


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ggufs.write(tmp_path_factory.mktemp("gguf") / "small.Q4_1.gguf")


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return str(caught.value)


def test_it_is_what_plain_transformers_loads(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    plain = hf.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, quantization_config=hf.GgufConfig(dequantize=True)
    )
    tokenizer = hf.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    capfd.readouterr()
    loaded = load(str(file))
    assert capfd.readouterr() == ("", "")
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
    assert loaded.name == loaded.tokenizer.name_or_path == loaded.model.config._name_or_path == str(file)
    assert loaded.model.dtype == torch.float32
    assert not getattr(loaded.model, "is_quantized", False)
    expected = plain.state_dict()
    assert set(loaded.model.state_dict()) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())
    assert expected["model.layers.0.self_attn.q_proj.weight"].unique().numel() > 100
    text = "the other thing: ünder\n 12"
    assert loaded.tokenizer(text).input_ids == tokenizer(text).input_ids
    assert loaded.tokenizer.decode(loaded.tokenizer(text).input_ids) == text
    assert loaded.tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "<user>x"


def test_a_folder_with_one_is_that_file_and_nothing_else_in_it(file: Path, tmp_path: Path) -> None:
    """The tokenizer and the template of another model lie beside it; Transformers would take them."""
    shutil.copy(file, tmp_path)
    builtin()[1].save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("wrong")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    found, alone = load(str(tmp_path)), load(str(file))
    assert model_hash(found.model) == model_hash(alone.model)
    assert tokenizer_hash(found.tokenizer) == tokenizer_hash(alone.tokenizer)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_saved_and_loaded_bit_for_bit(file: Path, tmp_path: Path, dtype: str) -> None:
    loaded = load(str(file), dtype)
    assert loaded.model.dtype == getattr(torch, dtype)
    assert export(loaded.model, loaded.tokenizer, tmp_path / "out").format == "plain"
    again = load(str(tmp_path / "out"))
    assert model_hash(again.model) == model_hash(loaded.model)
    assert tokenizer_hash(again.tokenizer) == tokenizer_hash(loaded.tokenizer)


def test_files_that_are_not_whole_are_one_line(file: Path, tmp_path: Path) -> None:
    whole, path = file.read_bytes(), tmp_path / "x.gguf"
    for length in (4, 100, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:length])
        assert "is damaged or cut off" in refused(path), length
    path.write_bytes(whole[2000:])
    assert "is not GGUF: it does not begin with these letters" in refused(path)
    path.write_bytes(b"")
    assert "is not GGUF" in refused(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n")
    assert "is a Git LFS pointer" in refused(path)
    path.unlink()
    assert "there is no file" in refused(path)


def test_parts_several_files_and_a_file_without_a_tokenizer(file: Path, tmp_path: Path) -> None:
    for index in (1, 2):
        shutil.copy(file, tmp_path / f"m-0000{index}-of-00002.gguf")
    line = (
        "is part {} of 2 of a split GGUF file, which is not read; join the parts with llama-gguf-split --merge m-00001"
    )
    assert line.format(1) in refused(tmp_path)
    assert line.format(2) in refused(tmp_path / "m-00002-of-00002.gguf")
    shutil.copy(file, tmp_path / "a.gguf")
    assert f"{tmp_path} holds 3 GGUF files (a.gguf, m-00001-of-0000" in refused(tmp_path)
    ggufs.write(tmp_path / "bare.gguf", tokenizer=False)
    assert "holds no tokenizer (tokenizer.ggml.tokens)" in refused(tmp_path / "bare.gguf")


def test_without_the_library_it_says_how_to_get_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pith.models.gguf_file.find_spec", lambda _: None)
    assert "GGUF files need the library gguf: pip install gguf accelerate" in refused(file)
