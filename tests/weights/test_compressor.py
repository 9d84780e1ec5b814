from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pith
from contracts.compressors import llama
from contracts.tiny import tiny
from pith.core import InputError, ModelError, ParameterError, Recipe, RecipeError
from pith.weights import Calibration, PackedLinear, stand_ins
from pith.weights.packed import GroupedLinear

pytestmark = pytest.mark.filterwarnings("ignore::pith.core.PithWarning")


def widths(model: object) -> dict[str, int]:
    return {
        name: one.bits
        for name, one in stand_ins(model).items()
        if isinstance(one, PackedLinear)  # type: ignore[arg-type]
    }


def test_widths_go_by_name_pattern_and_the_first_that_fits_counts() -> None:
    found = widths(pith.compress(llama(), 'rtn(bits={"*.down_proj": 4, "v_proj": 8, "*": 3}, group_size=32)'))
    assert {name: bits for name, bits in found.items() if bits != 3} == {
        **{f"model.layers.{index}.mlp.down_proj": 4 for index in range(4)},
        **{f"model.layers.{index}.self_attn.v_proj": 8 for index in range(4)},
    }
    assert len(found) == 28
    some = widths(pith.compress(llama(), 'rtn(bits={"*.down_proj": 4}, group_size=32)'))
    assert set(some) == {f"model.layers.{index}.mlp.down_proj" for index in range(4)}


def test_patterns_stand_in_files_too(tmp_path: Path) -> None:
    recipe = Recipe.parse('rtn(bits={"*.down_proj": 4, "*": 3}, skip=("lm_head", "*.layers.0.*"), group_size=32)')
    recipe.save(tmp_path / "recipe.toml")
    again = Recipe.load(tmp_path / "recipe.toml")
    assert again == recipe
    assert str(again) == str(recipe)
    assert hash(again) == hash(recipe)
    assert widths(pith.compress(llama(), again)) == widths(pith.compress(llama(), recipe))


def test_what_is_skipped_stays() -> None:
    mlp = {f"model.layers.{index}.mlp.{part}_proj" for index in range(4) for part in ("gate", "up", "down")}
    for skip, left in [
        ("''", set()),
        ("'lm_head'", {"lm_head"}),
        ("('lm_head', '*.mlp.*')", {"lm_head"} | mlp),
    ]:
        model = pith.compress(llama(), f"rtn(bits=4, group_size=32, skip={skip})")
        plain = {name for name, one in model.named_modules() if type(one) is torch.nn.Linear}
        assert plain == left
        assert all(model.get_submodule(name).weight is llama().get_submodule(name).weight for name in left)


def test_a_pattern_that_fits_nothing_is_one_line() -> None:
    with pytest.raises(ModelError, match=r"has no plain linear layer that bits=.* fits and skip='lm_head' leaves"):
        pith.compress(llama(), 'rtn(bits={"nothing": 4})')
    with pytest.raises(ParameterError, match="bits="):
        Recipe.parse("rtn(bits=5)")
    with pytest.raises(ParameterError, match="bits="):
        Recipe.parse('rtn(bits={"*": 5})')


def test_recipes_that_cannot_be_are_refused_when_they_are_built() -> None:
    for text, words in [
        ("rtn(bits=4) + wanda()", "wanda cannot follow rtn: it looks into single weights, which rtn has packed"),
        ("rtn(bits=4) + rtn(bits=3)", "both answer the question"),
        ("rtn(bits=4) + gptq(bits=3)", "both answer the question"),
    ]:
        with pytest.raises(RecipeError, match=words):
            Recipe.parse(text)
    for text in ("wanda() + rtn(bits=4)", "sleb(drop=1) + rtn(bits=4)", "rtn(bits=4) + sleb(drop=1)"):
        if all(name in pith.methods() for name in ("wanda", "sleb")):
            assert str(Recipe.parse(text).weights) == str(Recipe.parse(text))


def test_weights_are_not_changed_for_a_while() -> None:
    words = r"rtn\(bits=4\) changes weights: pith.compress.* returns a new model"
    with pytest.raises(RecipeError, match=words) as caught, pith.applied(llama(), "rtn() + snapkv(budget=0.5)"):
        pass
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"snapkv\(.*\) does not change weights"):
        pith.compress(llama(), "rtn(bits=4) + snapkv(budget=0.25)")


def test_a_method_that_reads_texts_asks_for_them() -> None:
    if "gptq" in pith.methods():
        with pytest.raises(InputError, match=r"gptq reads texts: give it a calibration"):
            pith.compress(llama(), "gptq(bits=4)")


def test_the_dense_recipe_gives_the_model_itself() -> None:
    assert pith.compress(llama(), "dense") is llama()


def test_what_bytes_are_predicted_changes_nothing() -> None:
    model = tiny("olmoe")
    kinds = [type(one) for one in model.modules()]
    [method] = Recipe.parse("rtn(bits=4, group_size=32)")
    assert method.predicted_bytes(model)  # type: ignore[attr-defined]
    assert [type(one) for one in model.modules()] == kinds


def test_the_model_says_what_was_done_to_it() -> None:
    once = pith.compress(llama(), "rtn(bits={'*.down_proj': 4}, group_size=32)")
    assert once.config.pith_recipe == ["rtn(bits={'*.down_proj': 4}, group_size=32)"]
    twice = next(iter(Recipe.parse("rtn(bits=3, group_size=32)"))).compress(once, Calibration.none())  # type: ignore[attr-defined]
    assert len(twice.config.pith_recipe) == 2
    assert {type(one) for one in stand_ins(twice).values()} == {GroupedLinear}
    assert not hasattr(llama().config, "pith_recipe")
