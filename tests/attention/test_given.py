"""What a forward under a recipe may be given as a cache; all else is one line."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import transformers as hf

import pith
from contracts.tiny import MAKERS, tiny, tokens
from pith.attention import PithCache
from pith.core import InputError, ModelError, PithError, Recipe

RECIPE = "random_eviction(budget=8)"


def refused(error: pytest.ExceptionInfo[PithError], *words: str) -> None:
    text = str(error.value)
    assert len(text) < 300
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("way", ["call", "generate", "config", "generation_config"])
def test_no_cache_is_refused(way: str) -> None:
    model, prompt = MAKERS["llama_gqa"]().eval(), tokens(1, 20)
    asked: dict[str, Any] = {"use_cache": False} if way in ("call", "generate") else {}
    if way == "config":
        model.config.use_cache = False
    if way == "generation_config":
        model.generation_config.use_cache = False
    run = model if way in ("call", "config") else partial(model.generate, max_new_tokens=2)
    with pith.applied(model, RECIPE), pytest.raises(InputError) as error:
        run(prompt, **asked)
    refused(error, "use_cache", RECIPE, "cannot act", "set ")
    with pith.applied(model, RECIPE):
        assert isinstance(model(prompt, use_cache=True).past_key_values, PithCache)


def test_gradient_checkpointing_in_training_is_refused() -> None:
    model, prompt = MAKERS["llama_gqa"](), tokens(1, 20)
    model.gradient_checkpointing_enable()
    with pith.applied(model.train(), RECIPE), pytest.raises(InputError) as error:
        model(prompt, use_cache=True)
    refused(error, "gradient checkpointing", "model.eval()")
    with pith.applied(model.eval(), RECIPE):
        assert isinstance(model(prompt, use_cache=True).past_key_values, PithCache)


def test_foreign_caches_are_refused() -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 20)
    config = model.config
    foreign: dict[str, Any] = {
        "StaticCache": hf.StaticCache(config=config, max_cache_len=64),
        "EncoderDecoderCache": hf.EncoderDecoderCache(hf.DynamicCache(), hf.DynamicCache()),
        "tuple": ((torch.zeros(1, 2, 3, 16), torch.zeros(1, 2, 3, 16)),) * 2,
        "offloaded DynamicCache": hf.DynamicCache(config=config, offloading=True)
        if torch.cuda.is_available()
        else None,
    }
    for name, cache in foreign.items():
        if cache is not None:
            with pith.applied(model, RECIPE), pytest.raises(InputError) as error:
                model(prompt, past_key_values=cache)
            refused(error, f"past_key_values={name} is not allowed", "recipe.cache(model)")
    with pith.applied(model, RECIPE), pytest.raises(InputError) as error:
        model.generate(prompt, max_new_tokens=4, cache_implementation="static")
    refused(error, "StaticCache", "cache_implementation")


def test_a_cache_of_another_name_is_refused() -> None:
    model = tiny("llama_gqa")
    with pith.applied(model, RECIPE), pytest.raises(InputError) as error:
        model(tokens(1, 8), cache_params=hf.DynamicCache())
    refused(error, "cache_params=DynamicCache", "past_key_values")


def test_a_model_without_past_key_values_is_refused() -> None:
    config = hf.MambaConfig(vocab_size=32, hidden_size=16, state_size=4, num_hidden_layers=2)
    model = hf.MambaForCausalLM(config)
    before = model.config._attn_implementation
    with pytest.raises(ModelError), pith.applied(model, RECIPE):
        pass
    assert model.config._attn_implementation == before
    assert "forward" not in vars(model)


def test_arguments_by_position() -> None:
    model, prompt = tiny("llama_gqa"), tokens(2, 20)
    mask, places = torch.ones_like(prompt), torch.arange(20).expand(2, -1)
    with pith.applied(model, RECIPE):
        expected = model(prompt, attention_mask=mask, position_ids=places)
        got = model(prompt, mask, places)
        assert torch.equal(got.logits, expected.logits)
        cache = got.past_key_values
        longer, next_place = torch.ones(2, 21, dtype=torch.long), torch.full((2, 1), 20)
        by_name = expected.past_key_values
        first = model(prompt[:, :1], longer, next_place, cache)
        assert torch.equal(
            first.logits,
            model(prompt[:, :1], attention_mask=longer, position_ids=next_place, past_key_values=by_name).logits,
        )
        assert first.past_key_values is cache
        with pytest.raises(InputError, match="past_key_values=StaticCache is not"):
            model(prompt, mask, places, hf.StaticCache(config=model.config, max_cache_len=64))
        with pytest.raises(TypeError, match="multiple values for 'input_ids'"):
            model(prompt, input_ids=prompt)


def test_a_companion_follows_a_cache_by_position() -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 40)
    recipe = Recipe.parse("sir_llm(budget=16)")
    by_name, by_place = recipe.cache(model), recipe.cache(model)
    expected = model.model(input_ids=prompt, past_key_values=by_name).last_hidden_state
    got = model.model(prompt, None, None, by_place).last_hidden_state
    model.set_attn_implementation("sdpa")
    assert torch.equal(got, expected)
    assert by_place.layers[0].store.length == by_name.layers[0].store.length == 16


def test_a_loop_that_continues_with_its_own_cache_is_refused() -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 20)
    cache = hf.DynamicCache()
    with pith.applied(model, RECIPE):
        out = model(prompt, past_key_values=cache)
        with pytest.raises(InputError) as error:
            model(prompt[:, :1], past_key_values=cache)
        refused(error, "DynamicCache is the one of an earlier forward", "past_key_values of the model's output")
        model(prompt[:, :1], past_key_values=out.past_key_values)
        assert out.past_key_values.get_seq_length() == 21


@pytest.mark.parametrize("way", ["call", "config", "generate", "cache"])
def test_attention_weights_are_refused(way: str) -> None:
    model, prompt = MAKERS["llama_gqa"]().eval(), tokens(1, 8)
    if way == "cache":
        cache = Recipe.parse(RECIPE).cache(model)
        with pytest.raises(InputError) as error:
            model(prompt, past_key_values=cache, output_attentions=True)
    else:
        if way == "config":
            model.set_attn_implementation("eager")
            model.config.output_attentions = True
        asked = {} if way == "config" else {"output_attentions": True}
        run = partial(model.generate, return_dict_in_generate=True) if way == "generate" else model
        with pytest.raises(InputError) as error, pith.applied(model, RECIPE):
            run(prompt, **asked)
    refused(error, "output_attentions=True is not allowed", "output_attentions=False")
