"""A recipe acts on the model inside a wrapper as on the model itself, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pith
from contracts.tiny import MAKERS, tiny, tokens
from pith.attention import PithCache
from pith.attention.wrappers import unwrap
from pith.core import ModelError, Recipe

RECIPE = "snapkv(budget=8, window=4)"


class Tuner(nn.Module):
    """As PEFT's LoraModel: its forward calls the model's forward directly, past all hooks."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.forward(*args, **kwargs)


class Peft(Tuner):
    """As PEFT's PeftModelForCausalLM around a LoraModel."""

    def __init__(self, model: nn.Module) -> None:
        nn.Module.__init__(self)
        self.base_model = Tuner(model)

    def __getattr__(self, name: str) -> Any:
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError:
            return getattr(nn.Module.__getattr__(self, "base_model"), name)

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        return self.base_model(input_ids=input_ids, output_attentions=None, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_model.generate(*args, **kwargs)


class Parallel(nn.Module):
    """As DistributedDataParallel: the model is `module`, and generate is the user's `wrapper.module.generate`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.generate(*args, **kwargs)


@pytest.mark.parametrize("wrap", [Tuner, Peft, Parallel, lambda model: torch.compile(model, backend="eager")])
def test_the_model_inside_a_wrapper_is_served(wrap: Any) -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 40)
    with pith.applied(model, RECIPE):
        expected = model.generate(prompt, max_new_tokens=8, do_sample=False)
        logits = model(prompt).logits
    wrapper = wrap(model)
    with pith.applied(wrapper, RECIPE) as given:
        assert given is wrapper
        out = wrapper.generate(prompt, max_new_tokens=8, do_sample=False, return_dict_in_generate=True)
        forward = wrapper(prompt)
    assert torch.equal(out.sequences, expected)
    assert out.past_key_values.layers[0].store.length == 8 + 7
    assert isinstance(forward.past_key_values, PithCache)
    assert torch.equal(forward.logits, logits)
    cache = Recipe.parse(RECIPE).cache(wrapper)
    passed = wrapper.generate(prompt, past_key_values=cache, max_new_tokens=8, do_sample=False)
    model.set_attn_implementation("sdpa")
    assert torch.equal(passed, expected)
    assert not isinstance(model(prompt).past_key_values, PithCache)


def test_a_wrapper_without_a_model_or_with_several_is_refused() -> None:
    with pytest.raises(ModelError, match="ModuleList is no Transformers model and holds none"):
        unwrap(nn.ModuleList([nn.Linear(2, 2)]))
    with pytest.raises(ModelError, match=r"holds 2 Transformers models \(.*LlamaForCausalLM.*\); pass the one"):
        unwrap(nn.ModuleList([MAKERS["llama_gqa"](), MAKERS["qwen3"]()]))
    with (
        pytest.raises(ModelError, match="DataParallel runs copies"),
        pith.applied(nn.DataParallel(tiny("qwen3")), "snapkv"),
    ):
        pass


def test_a_model_shared_by_two_parts_of_a_wrapper_is_one() -> None:
    model = tiny("llama_gqa")
    assert unwrap(nn.ModuleList([model, Parallel(model)])) is model


def test_what_is_not_a_model_is_refused() -> None:
    for given in ("gpt2", None, 5):
        with pytest.raises(ModelError, match="is no Transformers model"), pith.applied(given, "snapkv"):
            pass
        with pytest.raises(ModelError, match="is no Transformers model"):
            Recipe.parse("snapkv").cache(given)
