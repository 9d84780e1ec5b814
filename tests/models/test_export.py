"""What is written is read by those whom it is written for, as the same model; or nothing is written."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

import pith
from contracts.compressors import gpt2, llama
from contracts.tiny import tiny, tokens
from pith.core import InputError, ModelError, PithWarning, Recipe
from pith.models import compressed_tensors, export
from pith.models.export import kind_of, require_possible
from pith.weights import Grid, PackedLinear, of_tokens, pack_linear, set_bias
from pith.weights.duplicate import duplicate
from pith.weights.folder import as_saved, is_pith

LIBRARY = pytest.mark.skipif(
    compressed_tensors.missing() is not None, reason="compressed-tensors (the extra of that name) is not installed"
)


def packed(recipe: str, model: Any = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        return pith.compress(model or llama(), recipe)


def odd() -> Any:
    """A Llama whose 72 and 216 inputs no group of 128, 64 or 32 divides, with its tied embedding."""
    config = LlamaConfig(
        vocab_size=97, hidden_size=72, intermediate_size=216, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(tokens(2, 70)).logits
    return found


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Those of another model are about as far apart as they are long."""
    allowed = 1e-4 if expected.dtype == torch.float32 else 0.1
    assert (found - expected).float().norm() <= allowed * expected.float().norm()


@LIBRARY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "recipe",
    [
        "rtn(bits=4, group_size=32)",
        "rtn(bits=4, group_size=32, symmetric=True)",
        "rtn(bits=3, group_size=32)",
        "rtn(bits=2, group_size=16)",
        "rtn(bits=8)",
        "rtn(bits=4, group_size=0)",
        "rtn(bits=4, group_size=32, skip='')",
        "rtn(bits=4, group_size=32, skip=('lm_head', '*.layers.1.*'))",
        'rtn(bits={"*.down_proj": 4, "*.v_proj": 8, "*": 3}, group_size=32, symmetric=True)',
    ],
)
def test_plain_transformers_reads_packed_models(recipe: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = packed(recipe, llama(tied=dtype == torch.bfloat16, dtype=dtype))
    assert export(model, None, tmp_path / "out").format == "compressed-tensors"
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert again.dtype == dtype
    near(logits(again), logits(model))
    assert not list(tmp_path.glob("*.draft"))
    said = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert said["format"] == "pack-quantized"
    assert ("lm_head" in said["ignore"]) == ("skip=''" not in recipe)


@LIBRARY
@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
def test_plain_transformers_reads_layers_that_128_does_not_divide(method: str, tmp_path: Path) -> None:
    model, texts = odd(), of_tokens(tokens(2, 24).tolist())
    require_possible(model, Recipe.parse(f"{method}(bits=4)"), "compressed-tensors")
    smaller = pith.compress(model, f"{method}(bits=4)", texts)
    assert smaller.config.pith_recipe == [f"{method}(bits=4, group_size=72)"]
    assert export(smaller, None, tmp_path / "out").format == "compressed-tensors"
    near(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(smaller))


@LIBRARY
def test_the_file_takes_its_bits(tmp_path: Path) -> None:
    export(packed("rtn(bits=3, group_size=32)"), None, tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        words = file.get_tensor("model.layers.0.mlp.down_proj.weight_packed")
        zeros = file.get_tensor("model.layers.0.mlp.down_proj.weight_zero_point")
    assert words.shape == (64, 96 * 3 // 32)
    assert words.dtype == torch.int32
    assert zeros.shape == (64 * 3 // 32, 3)


@LIBRARY
def test_biases_come_along(tmp_path: Path) -> None:
    model = packed("rtn(bits=4, group_size=32)", tiny("gpt_neox"))
    assert export(model, None, tmp_path / "out").format == "compressed-tensors"
    near(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(model))


@LIBRARY
def test_it_generates_with_its_tokenizer_and_its_settings(tmp_path: Path) -> None:
    model, tokenizer = pith.models.builtin()
    model.generation_config.max_new_tokens = 5
    export(packed("rtn(bits=4)", model), tokenizer, tmp_path)
    again, reader = (one.from_pretrained(tmp_path) for one in (AutoModelForCausalLM, AutoTokenizer))
    assert again.generate(**reader("import os", return_tensors="pt")).shape[1] <= 2 + 5 + 4
    assert again.generation_config.max_new_tokens == 5
    assert pith.load(str(tmp_path)).model.config.pith_recipe == ["rtn(bits=4, group_size=128)"]


def test_models_without_stand_ins_are_plain(tmp_path: Path) -> None:
    for name in ("llama_gqa", "gemma3", "gpt_neox", "olmoe"):
        assert export(tiny(name), None, tmp_path / name).format == "plain"
        again = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        near(logits(again), logits(tiny(name)))


def test_what_others_cannot_hold_is_for_pith_alone(tmp_path: Path) -> None:
    fractional = duplicate(llama())
    codes = torch.randint(0, 16, (96, 64), dtype=torch.uint8)
    grid = Grid(4, torch.full((96, 2), 0.1), torch.full((96, 2), 7.3), 32)
    pack_linear(fractional, "model.layers.0.mlp.up_proj", grid, codes)
    as_saved(fractional)
    outside = duplicate(llama())
    pack_linear(outside, "model.layers.0.mlp.up_proj", Grid(4, grid.scale, torch.full((96, 2), -3.0), 32), codes)
    as_saved(outside)
    for name, model, words in [
        ("fractional", fractional, "knows whole zeros only, which those of model.layers.0.mlp.up_proj are not"),
        ("outside", outside, "knows zeros among the codes only"),
        ("ragged", packed("rtn(bits=4, group_size=40)"), "needs rows of whole groups; .* 64 inputs in groups of 40"),
        ("mixed", packed('rtn(bits={"*.down_proj": 4, "*": 3}, group_size=32)'), "only where every grid is symmetric"),
        ("gpt2", packed("rtn(bits=4, group_size=32)", gpt2()), "knows plain linear layers only, which transformer.h.0"),
        ("experts", packed("rtn(bits=4, group_size=32)", tiny("olmoe")), "cannot hold .*experts"),
    ]:
        if compressed_tensors.missing() is None:
            with pytest.raises(ModelError, match=words) as caught:
                export(model, None, tmp_path / name, "compressed-tensors")
            assert "\n" not in str(caught.value)
            assert not (tmp_path / name).exists()
        with pytest.raises(ModelError, match="a plain checkpoint cannot hold"):
            export(model, None, tmp_path / name, "plain")
        assert export(model, None, tmp_path / name).format == "pith"
        assert is_pith(tmp_path / name)
        with pytest.raises(ValueError, match="pith"):
            AutoModelForCausalLM.from_pretrained(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            "rtn(bits=4, group_size=40)",
            "compressed-tensors",
            "64 inputs in groups of 40, .* group_size=64 fits",
        ),
        ('rtn(bits={"*.down_proj": 4, "*": 3}, group_size=32)', "compressed-tensors", "2 widths or group sizes"),
        ('rtn(bits={"*.down_proj": 4, "*": 8}, group_size=32)', "compressed-tensors", "2 widths or group sizes"),
        ("wanda()", "compressed-tensors", "no layer will be packed, .*; allowed is the format plain"),
        ("rtn(bits=8)", "plain", "a plain checkpoint cannot hold what rtn packs; allowed is the format pith"),
    ],
)
def test_a_format_that_cannot_hold_it_is_refused_before_any_work(text: str, kind: str, words: str) -> None:
    if kind == "plain" or compressed_tensors.missing() is None:
        with pytest.raises(ModelError, match=words) as caught:
            require_possible(llama(), Recipe.parse(text), kind)
        assert len(str(caught.value)) < 300
    for other in {"auto", "pith"}:
        require_possible(llama(), Recipe.parse(text), other)


@LIBRARY
@pytest.mark.parametrize(
    "text",
    [
        "rtn(bits=4, group_size=32)", "rtn(bits=8)", "rtn(bits=4, group_size=0)", "rtn(bits=4)",
        'rtn(bits={"*.down_proj": 4, "*": 8}, symmetric=True)', "wanda() + rtn(bits=4, group_size=40)",
    ],
)  # fmt: skip
def test_a_format_that_may_hold_it_is_not_refused_before(text: str) -> None:
    require_possible(llama(), Recipe.parse(text), "compressed-tensors")
    found = compressed_tensors.refusal(pith.compress(llama(), text, of_tokens([list(range(64))])))
    # pruning may change widths, so that groups of 40 are known not to fit only afterwards
    assert (found is None) == ("wanda" not in text)


@LIBRARY
def test_layers_that_others_do_not_know_are_refused_before_any_work() -> None:
    for model, name in ((gpt2(), "transformer.h.0"), (tiny("olmoe"), "model.layers.0.mlp.experts")):
        with pytest.raises(ModelError, match=f"knows plain linear layers only, which {name}"):
            require_possible(model, Recipe.parse("rtn(bits=4, group_size=32)"), "compressed-tensors")


def test_without_the_library_auto_is_for_pith_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compressed_tensors, "find_spec", lambda name: None)
    assert kind_of(packed("rtn(bits=4, group_size=32)")) == "pith"
    with pytest.raises(InputError, match=r"pip install 'pith-lm\[compressed-tensors\]'"):
        export(packed("rtn(bits=4, group_size=32)"), None, tmp_path / "out", "compressed-tensors")


@LIBRARY
def test_a_reader_that_makes_another_model_of_it_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias that the configuration knows nothing of, codes that were changed, and a reader that fails."""
    biased = duplicate(llama())
    set_bias(biased.model.layers[0].mlp.up_proj, torch.full((96,), 3.0))
    with pytest.raises(ModelError, match="the reader of plain cannot read what was written"):
        export(biased, None, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    model, held = packed("rtn(bits=4, group_size=32)"), compressed_tensors._held

    def wrong(layer: PackedLinear, scheme: Any) -> dict[str, torch.Tensor]:
        tensors = held(layer, scheme)
        return {**tensors, "weight_packed": tensors["weight_packed"].roll(1, 0)}

    monkeypatch.setattr(compressed_tensors, "_held", wrong)
    with pytest.raises(ModelError, match="compressed-tensors reads another model back: logits lie"):
        export(model, None, tmp_path / "out")
    monkeypatch.setattr(compressed_tensors, "_held", lambda layer, scheme: {})
    with pytest.raises(ModelError, match="the reader of compressed-tensors cannot read what was written"):
        export(model, None, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out.draft").mkdir()
    (tmp_path / "out.draft" / "mine").write_text("mine")

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError('Error while serializing: I/O error: No space left on device (os error 28) at path "/x"')

    monkeypatch.setattr("pith.weights.folder.save_file", full)
    with pytest.raises(InputError, match=r"out cannot be written: No space left on device$"):
        export(packed("rtn(bits=4)"), None, tmp_path / "out", "pith")
    with pytest.raises(InputError, match=r"new cannot be written: No space left on device$"):
        packed("rtn(bits=4)").save_pretrained(tmp_path / "new")
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["mine", "out.draft"]


@pytest.mark.parametrize("kind", ["plain", "pith"])
def test_what_was_written_is_verified_when_it_is_read(kind: str, tmp_path: Path) -> None:
    model, tokenizer = pith.models.builtin()
    later = pith.Recipe.parse("snapkv(budget=0.125)")
    export(packed("rtn(bits=4)", model) if kind == "pith" else model, tokenizer, tmp_path / "out", kind, later)
    assert str(pith.Recipe.load(tmp_path / "out" / "recipe.toml")) == "snapkv(budget=0.125)"
    (tmp_path / "out" / "recipe.toml").write_text("")
    pith.load(str(tmp_path / "out"))
    weights = next((tmp_path / "out").glob("*.safetensors"))
    for file in (weights, tmp_path / "out" / "tokenizer.json", tmp_path / "out" / "generation_config.json"):
        whole = file.read_bytes()
        file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        with pytest.raises(ModelError, match=f"{file.name} of .* is damaged") as caught:
            pith.load(str(tmp_path / "out"))
        assert "\n" not in str(caught.value)
        file.write_bytes(whole)
    pith.load(str(tmp_path / "out"))


def test_a_folder_in_which_something_is_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="is not empty; allowed is a new or an empty one"):
        export(llama(), None, tmp_path)
    with pytest.raises(InputError, match="is a file; allowed is a new or an empty folder"):
        export(llama(), None, tmp_path / "mine")
    with pytest.raises(InputError, match="format='nothing' is not allowed; allowed is one of auto, plain"):
        export(llama(), None, tmp_path / "out", "nothing")
    assert [one.name for one in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    export(llama(), None, tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").is_file()
