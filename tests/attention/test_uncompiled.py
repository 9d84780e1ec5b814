"""A compiled model writes the text of the uncompiled one, under every recipe and in every way of compiling."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import transformers as hf

import pith
from contracts.tiny import COMMON, tokens
from pith.attention import PithCache
from pith.core import ModelError, Recipe


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def whole(model: hf.PreTrainedModel) -> hf.PreTrainedModel:
    model.compile(backend="eager")
    return model


def forward(model: hf.PreTrainedModel) -> hf.PreTrainedModel:
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def layers(model: hf.PreTrainedModel) -> hf.PreTrainedModel:
    for layer in model.model.layers:
        layer.compile(backend="eager")
    return model


WAYS: list[Callable[[hf.PreTrainedModel], hf.PreTrainedModel]] = [whole, forward]
RECIPES = [
    "dense",
    "streaming_llm(budget=12)",
    "kivi(bits=2, group_size=16, residual_length=16)",
    "sir_llm(budget=16)",
]


def model_of() -> hf.PreTrainedModel:
    torch.manual_seed(0)
    config = hf.LlamaConfig(**{**COMMON, "num_hidden_layers": 1}, num_key_value_heads=2, head_dim=16)
    model = hf.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model


def write(model: hf.PreTrainedModel) -> torch.Tensor:
    written: torch.Tensor = model.generate(tokens(1, 40), max_new_tokens=4, do_sample=False)
    return written


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_model_writes_the_same_text(way: Callable[..., hf.PreTrainedModel], recipe: str) -> None:
    plain, compiled = model_of(), way(model_of())
    with pith.applied(plain, recipe):
        expected = write(plain)
    with pith.applied(compiled, recipe):
        assert torch.equal(write(compiled), expected)
        assert torch.equal(write(compiled), expected)


@pytest.mark.parametrize("way", WAYS)
def test_code_that_was_compiled_before_and_after_is_right(way: Callable[..., hf.PreTrainedModel]) -> None:
    plain, compiled, prompt = model_of(), way(model_of()), tokens(1, 40)
    dense = plain(prompt).logits
    with pith.applied(plain, RECIPES[1]):
        expected = write(plain)
    assert (compiled(prompt).logits - dense).abs().max() < 1e-5
    with pith.applied(compiled, RECIPES[1]):
        assert torch.equal(write(compiled), expected)
    out = compiled(prompt)
    assert (out.logits - dense).abs().max() < 1e-5
    assert not isinstance(out.past_key_values, PithCache)


def test_compiled_layers_write_the_same_text() -> None:
    """Each layer's graph breaks at the update and at the attention."""
    plain, compiled = model_of(), layers(model_of())
    with pith.applied(plain, RECIPES[1]):
        expected = write(plain)
    with pith.applied(compiled, RECIPES[1]):
        assert torch.equal(write(compiled), expected)


def test_a_cache_of_ones_own_with_a_compiled_model_is_right() -> None:
    plain, compiled = model_of(), whole(model_of())
    caches = [Recipe.parse(RECIPES[1]).cache(model) for model in (plain, compiled)]
    for part in tokens(1, 42).split([40, 1, 1], dim=1):
        expected, got = (
            model(part, past_key_values=cache).logits for model, cache in zip((plain, compiled), caches, strict=True)
        )
        assert (got - expected).abs().max() < 1e-5
    assert caches[1].layers[0].store.length == 12


def test_a_companion_that_does_not_follow_the_forward_is_noticed() -> None:
    model = model_of()
    cache = Recipe.parse("sir_llm(budget=16)").cache(model)
    for hooks in (model.model._forward_pre_hooks, model.model._forward_hooks):
        hooks.clear()  # as compiled code may do that was made before they were there
    with pytest.raises(ModelError, match="does not follow this forward"):
        model(tokens(1, 8), past_key_values=cache)


def test_fullgraph_is_refused_in_one_line() -> None:
    model = model_of()
    model.compile(backend="eager", fullgraph=True)
    with pytest.raises(ModelError) as error, pith.applied(model, "dense"):
        write(model)
    assert "fullgraph=True" in str(error.value)
    assert len(str(error.value)) < 300
