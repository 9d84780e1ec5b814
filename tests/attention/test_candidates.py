"""Assisted decoding writes the text of greedy decoding under every recipe, or is refused in one line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

import pytest
import torch
import transformers as hf

import pith
from contracts.tiny import tiny, tokens
from contracts.variants import COMBINATORS, METHODS, READINGS, RETENTIONS, STORAGES, everything, tight
from pith.attention import PithCache
from pith.attention.call import Call
from pith.attention.candidates import count_candidates, expect_candidates
from pith.core import InputError, ModelError, PithWarning, Recipe

TAKE_BACK = {"think", "kivi", "deco_quant", "kv_cache_int8", "quest", "snapkv", "ada_kv", "pyramid_kv", "key_norm"}
"""Methods that must not refuse candidates."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        yield


def repeated(length: int) -> torch.Tensor:
    """A prompt in which the same words come again, so that looking them up proposes candidates."""
    return tokens(1, length).repeat(1, 4)


def write(model: hf.PreTrainedModel, recipe: str, prompt: torch.Tensor, **how: object) -> torch.Tensor:
    with pith.applied(model, recipe):
        return model.generate(prompt, max_new_tokens=20, do_sample=False, **how)


def write_or_refuse(model: hf.PreTrainedModel, recipe: str, prompt: torch.Tensor) -> torch.Tensor | str:
    """The text written with candidates looked up in the prompt, or the line that refuses it."""
    try:
        return write(model, recipe, prompt, prompt_lookup_num_tokens=4)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("name", ["llama_gqa", "gemma3"])
@pytest.mark.parametrize("method", [*RETENTIONS, *STORAGES, *READINGS])
def test_prompt_lookup_writes_what_greedy_decoding_writes(method: str, name: str) -> None:
    model, prompt = tiny(name), repeated(30)
    whole = [everything(method)] if name == "llama_gqa" and method not in STORAGES else []
    for recipe in [tight(method), *whole]:
        try:
            greedy = write(model, recipe, prompt)
        except ModelError as error:
            pytest.skip(str(error))
        looked_up = write_or_refuse(model, recipe, prompt)
        if isinstance(looked_up, str):
            assert method not in TAKE_BACK
            assert re.fullmatch(rf"{method} .* assisted decoding does not work with it.{{,150}}", looked_up)
        else:
            assert torch.equal(greedy, looked_up)


@pytest.mark.parametrize("recipe", ["dense", "snapkv(budget=0.3)", "kivi(group_size=8, residual_length=8)"])
def test_an_assistant_model_changes_no_token(recipe: str) -> None:
    model, prompt = tiny("llama_gqa"), repeated(30)
    assistant = tiny("llama_mha")
    assert torch.equal(write(model, recipe, prompt), write(model, recipe, prompt, assistant_model=assistant))


@pytest.mark.parametrize(
    "recipe",
    [
        "ada_kv(snapkv(budget=0.4)) + kivi(group_size=8, residual_length=8)",
        "snapkv(budget=0.5) + kv_cache_int8 + quest(token_budget=16, page_size=4, skip_layers=0)",
        "pyramid_kv(snapkv(budget=0.5)) + deco_quant(block=8)",
    ],
)
def test_recipes_of_several_methods_take_candidates_back(recipe: str) -> None:
    model, prompt = tiny("llama_gqa"), repeated(30)
    assert torch.equal(write(model, recipe, prompt), write(model, recipe, prompt, prompt_lookup_num_tokens=4))


def test_prompt_and_candidates_in_one_forward_evict_the_prompt_alone() -> None:
    model, prompt, drafted = tiny("llama_gqa"), tokens(1, 60), tokens(1, 3, seed=1)
    recipe = Recipe.parse("snapkv(budget=0.25, window=4)")
    cache = recipe.cache(model)
    logits = [model(prompt, past_key_values=cache).logits[:, -1:]]
    logits += [model(drafted[:, i : i + 1], past_key_values=cache).logits for i in range(3)]
    at_once = recipe.cache(model)
    expect_candidates(at_once, 3)
    together = model(torch.cat([prompt, drafted], dim=1), past_key_values=at_once).logits[:, -4:]
    model.set_attn_implementation("sdpa")
    assert (together - torch.cat(logits, dim=1)).abs().max() < 1e-5
    assert at_once.layers[0].store.length == 15 + 3


@pytest.mark.parametrize("recipe", [tight(storage) for storage in STORAGES])
@pytest.mark.parametrize("removed", [1, 4, 9])
def test_what_candidates_packed_is_unpacked_when_they_are_removed(recipe: str, removed: int) -> None:
    """On one layer that is given the same keys and values both times, so that no rounding tips a code."""
    model, draw = tiny("llama_gqa"), torch.Generator().manual_seed(0)
    verifies, decodes = (Recipe.parse(recipe).cache(model).layers[0] for _ in range(2))
    model.set_attn_implementation("sdpa")
    call = Call(module=model, mask=None, positions=None, scaling=None, softcap=None, sinks=None, dropout=0.0)

    def draw_tokens(count: int) -> list[torch.Tensor]:
        return [torch.randn(2, heads, count, 16, generator=draw) for heads in (4, 2, 2)]

    prompt, drafted = draw_tokens(41), draw_tokens(9)
    for layer in (verifies, decodes):
        layer.attend(call, *prompt)
    verifies.candidates = 9
    together = verifies.attend(call, *drafted)
    verifies.crop(-removed)
    for i in range(9 - removed):
        alone = decodes.attend(call, *(x[:, :, i : i + 1] for x in drafted))
        assert (together[:, :, i : i + 1] - alone).abs().max() < 1e-5
    for _ in range(20):
        token = draw_tokens(1)
        assert (verifies.attend(call, *token) - decodes.attend(call, *token)).abs().max() < 1e-5
    assert verifies.store.key_column.packed == decodes.store.key_column.packed
    assert torch.equal(verifies.keys, decodes.keys)
    assert torch.equal(verifies.values, decodes.values)
    assert torch.equal(verifies.store.positions, decodes.store.positions)


def test_nothing_is_held_for_candidates_once_they_are_confirmed() -> None:
    model = tiny("llama_gqa")
    cache = Recipe.parse("kv_cache_int8").cache(model)
    model(tokens(1, 20), past_key_values=cache)
    expect_candidates(cache, 4)
    model(tokens(1, 4, seed=1), past_key_values=cache)
    during = sum(t.nbytes for t in cache.tensors())
    model(tokens(1, 1, seed=2), past_key_values=cache)
    model.set_attn_implementation("sdpa")
    # one more token is packed, and the candidates' own keys and values are held no longer
    assert sum(t.nbytes for t in cache.tensors()) < during


def test_only_forwards_of_generate_hold_candidates() -> None:
    model = tiny("llama_gqa")
    cache, ids = Recipe.parse("dense").cache(model), tokens(1, 8)
    asked = {"input_ids": ids, "logits_to_keep": 3}
    assert count_candidates(cache, asked) == 0
    cache.by_generate = True
    assert count_candidates(cache, asked) == 2
    assert count_candidates(cache, {**asked, "logits_to_keep": 1}) == 0
    assert count_candidates(cache, {"input_ids": ids}) == 0
    model(ids, past_key_values=cache)
    model.set_attn_implementation("sdpa")
    assert count_candidates(cache, asked) == 0
    assert count_candidates(cache, {"input_ids": ids[:, :3], "logits_to_keep": 3}) == 2


def test_a_cache_that_the_user_passes_is_refused() -> None:
    model, prompt = tiny("llama_gqa"), repeated(10)
    cache = Recipe.parse("snapkv(budget=0.5)").cache(model)
    with pytest.raises(InputError, match="assisted decoding does not take recipe"):
        model.generate(prompt, past_key_values=cache, prompt_lookup_num_tokens=4, max_new_tokens=4)
    model.set_attn_implementation("sdpa")


def test_crop_takes_a_negative_number_as_transformers_does() -> None:
    model = tiny("llama_gqa")
    cache = Recipe().cache(model)
    assert isinstance(cache, PithCache)
    model(tokens(1, 8), past_key_values=cache)
    model.set_attn_implementation("sdpa")
    for count in (1, 8):
        with pytest.raises(InputError, match="negative number"):
            cache.crop(count)
    with pytest.raises(InputError, match="at most 8"):
        cache.crop(-9)
    cache.crop(0)
    assert cache.get_seq_length() == 8
    cache.crop(-8)
    assert cache.get_seq_length() == 0


def test_every_method_is_tried() -> None:
    assert not TAKE_BACK - set(METHODS)
    assert not set(COMBINATORS) - set(RETENTIONS)
