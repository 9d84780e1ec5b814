"""Applying a recipe: everything is taken back, and two models in two threads do not meet."""

from __future__ import annotations

import threading

import pytest
import torch
import transformers as hf

import pith
from contracts.tiny import COMMON, MAKERS, tiny, tokens
from pith.attention import LayerCache, PithCache
from pith.core import InputError, ModelError, PithWarning, Recipe


def state(model: hf.PreTrainedModel) -> tuple[object, ...]:
    return model.config._attn_implementation, dict(model._forward_pre_hooks), sorted(vars(model))


def test_everything_is_taken_back() -> None:
    model = tiny("llama_gqa")
    before = state(model)
    with pith.applied(model, "snapkv(budget=0.5)"):
        assert state(model) != before
        assert isinstance(model(tokens(1, 8)).past_key_values, PithCache)
    assert state(model) == before
    assert isinstance(model(tokens(1, 8)).past_key_values, hf.DynamicCache)


def test_everything_is_taken_back_after_an_exception() -> None:
    model = tiny("llama_gqa")
    before = state(model)
    with pytest.raises(RuntimeError, match="mine"), pith.applied(model, "snapkv"):
        raise RuntimeError("mine")
    assert state(model) == before


def test_a_model_that_is_refused_is_left_as_it_was() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON, rope_parameters=rope))
    before = state(model)
    with pytest.raises(ModelError, match="dynamic"), pith.applied(model, "streaming_llm"):
        pass
    assert state(model) == before


def test_recipes_can_be_nested_and_the_inner_one_counts() -> None:
    model = tiny("llama_gqa")
    with pith.applied(model, Recipe()):
        with pith.applied(model, "snapkv(budget=4)"):
            assert model(tokens(1, 40)).past_key_values.layers[0].store.length == 4
        assert model(tokens(1, 40)).past_key_values.layers[0].store.length == 40


def test_a_cache_for_those_who_pass_their_own() -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 40)
    cache = Recipe.parse("snapkv(budget=0.25, window=4)").cache(model)
    passed = model.generate(prompt, past_key_values=cache, max_new_tokens=8, do_sample=False)
    model.set_attn_implementation("sdpa")
    assert cache.layers[0].store.length == 10 + 7
    with pith.applied(model, "snapkv(budget=0.25, window=4)"):
        assert torch.equal(model.generate(prompt, max_new_tokens=8, do_sample=False), passed)


def test_a_cache_that_holds_text_already_is_refused() -> None:
    model = tiny("llama_gqa")
    full = model(tokens(1, 8)).past_key_values
    with pith.applied(model, "snapkv"), pytest.raises(InputError, match="DynamicCache of 8 tokens"):
        model(tokens(1, 4), past_key_values=full)


def test_a_forward_without_a_cache_is_dense_under_the_dense_recipe() -> None:
    model, prompt = tiny("llama_gqa"), tokens(2, 30)
    mask = torch.ones_like(prompt)
    mask[1, :9] = 0
    expected = model(prompt, attention_mask=mask, use_cache=False).logits
    with pith.applied(model, "dense"):
        got = model(prompt, attention_mask=mask, use_cache=False).logits
    assert (got - expected)[mask.bool()].abs().max() < 1e-5


def test_two_models_in_two_threads() -> None:
    models = [MAKERS["llama_gqa"]().eval(), MAKERS["qwen3"]().eval()]
    prompt, recipes, alone, together = (
        tokens(1, 60),
        ["snapkv(budget=0.3)", "streaming_llm(budget=20)"],
        [],
        [None, None],
    )

    def run(i: int) -> torch.Tensor:
        with pith.applied(models[i], recipes[i]):
            return torch.stack([models[i].generate(prompt, max_new_tokens=24, do_sample=False) for _ in range(3)])

    alone = [run(0), run(1)]
    threads = [threading.Thread(target=lambda i=i: together.__setitem__(i, run(i))) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(alone[0], together[0])
    assert torch.equal(alone[1], together[1])


def test_layers_that_are_left_alone_are_named() -> None:
    model = tiny("gemma3")
    with pytest.warns(
        PithWarning, match=r"leaves 1 of 2 layers of Gemma3ForCausalLM alone \(sliding window of 16\): 0"
    ):
        cache = Recipe.parse("snapkv").cache(model)
    model.set_attn_implementation("sdpa")
    assert cache.left_alone == {0: "sliding window of 16"}
    assert isinstance(cache.layers[1], LayerCache)


def test_right_padding_is_refused() -> None:
    model, prompt = tiny("llama_gqa"), tokens(2, 12)
    mask = torch.ones_like(prompt)
    mask[1, 9:] = 0
    with (
        pith.applied(model, "snapkv(budget=0.5)"),
        pytest.raises(InputError, match="row 1 ends in padding; pad on the left"),
    ):
        model(prompt, attention_mask=mask)


def test_attention_that_does_not_reach_pith_is_noticed() -> None:
    model = tiny("llama_gqa")
    cache = Recipe().cache(model)
    model.set_attn_implementation("sdpa")
    with pytest.raises(ModelError, match="attention of layer 0 did not reach Pith"):
        model(tokens(1, 8), past_key_values=cache)


def test_an_encoder_decoder_model_is_refused() -> None:
    config = hf.T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(ModelError, match="encoder-decoder"):
        Recipe().cache(hf.T5ForConditionalGeneration(config))


def test_a_budget_in_bytes_is_kept_to() -> None:
    model, prompt = tiny("llama_gqa"), tokens(2, 300)
    cache = Recipe.parse("snapkv(budget='20KiB', window=4)").cache(model)
    model(prompt, past_key_values=cache)
    model.set_attn_implementation("sdpa")
    held = sum(t.untyped_storage().nbytes() for t in cache.tensors()) / 2  # of two sequences
    assert 0.97 * 20 * 2**10 < held <= 20 * 2**10


def test_a_cache_can_be_used_again_after_reset() -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 40)
    cache = Recipe.parse("streaming_llm(budget=8)").cache(model)
    first = [model(part, past_key_values=cache).logits for part in prompt.split([30, 5, 5], dim=1)][-1]
    cache.reset()
    again = [model(part, past_key_values=cache).logits for part in prompt.split([30, 5, 5], dim=1)][-1]
    model.set_attn_implementation("sdpa")
    assert torch.equal(first, again)
