"""A handover that is lost is an error, and what an interrupted forward left behind harms no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers as hf

import pith
from contracts.tiny import MAKERS, tiny, tokens
from pith.attention import LayerCache, in_flight
from pith.attention.in_flight import CacheGroup
from pith.core import InputError, ModelError, Recipe


class InterruptedForwardError(RuntimeError):
    pass


@contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, layer: int) -> Iterator[None]:
    """In this block a layer's update raises once it has handed the layer over."""
    update = LayerCache.update

    def fails(self: LayerCache, *args: Any, **kwargs: Any) -> Any:
        out = update(self, *args, **kwargs)
        if self.index == layer:
            raise InterruptedForwardError
        return out

    with monkeypatch.context() as patch:
        patch.setattr(LayerCache, "update", fails)
        yield


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("next_forward", ["applied", "none", "dynamic", "other"])
def test_an_interrupted_forward_harms_no_other(monkeypatch: pytest.MonkeyPatch, layer: int, next_forward: str) -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 20)
    expected = model(prompt).logits
    cache = Recipe().cache(model)
    with interrupted(monkeypatch, layer), pytest.raises(InterruptedForwardError):
        model(prompt[:, :9], past_key_values=cache)
    if next_forward == "applied":
        with pith.applied(model, "dense"):
            got = model(prompt).logits
    elif next_forward == "none":
        got = model(prompt, use_cache=False).logits
    elif next_forward == "dynamic":
        got = model(prompt, past_key_values=hf.DynamicCache()).logits
    else:
        got = model(prompt, past_key_values=Recipe().cache(model)).logits
    model.set_attn_implementation("sdpa")
    assert (got - expected).abs().max() < 1e-5


def test_a_cache_of_an_interrupted_forward_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompt = tiny("llama_gqa"), tokens(1, 20)
    with pith.applied(model, "dense"):
        cache = model(prompt).past_key_values
        with interrupted(monkeypatch, 1), pytest.raises(InterruptedForwardError):
            model(prompt[:, :3], past_key_values=cache)
        with pytest.raises(InputError, match="was interrupted: its layers hold 20 to 23 tokens"):
            model(prompt[:, :1], past_key_values=cache)


def test_attention_called_twice_for_one_update_is_refused() -> None:
    """A second attention would see the new tokens only."""
    model, prompt = MAKERS["llama_gqa"]().eval(), tokens(1, 8)
    attention = model.model.layers[0].self_attn
    forward = attention.forward

    def twice(*args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        forward(*args, past_key_values=past_key_values, **kwargs)
        return forward(*args, past_key_values=None, **kwargs)

    with pith.applied(model, "dense"):
        attention.forward = twice
        with pytest.raises(ModelError, match="cache of layer 0 did not reach its attention"):
            model(prompt)


def test_attention_that_goes_past_pith_in_the_last_layer_is_noticed() -> None:
    model, prompt = MAKERS["llama_gqa"]().eval(), tokens(1, 8)
    attention = model.model.layers[1].self_attn
    forward = attention.forward

    def past(*args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        past_key_values.update(torch.zeros(1, 2, 8, 16), torch.zeros(1, 2, 8, 16), 1)
        return torch.zeros_like(kwargs["hidden_states"]), None

    with pith.applied(model, "dense"):
        attention.forward = past
        with pytest.raises(ModelError, match="attention of layer 1 did not reach Pith"):
            model(prompt)
        attention.forward = forward
        assert model(prompt).logits.shape[1] == 8


def test_an_attention_without_an_index_is_refused_only_where_all_layers_are_managed() -> None:
    class Layer:
        index, group = 0, CacheGroup([0, 1], 2)

    in_flight.put(Layer())
    assert in_flight.take(None).index == 0
    with pytest.raises(ModelError, match="did not reach its attention"):
        in_flight.take(None)
    Layer.group = CacheGroup([0, 1], 3)
    in_flight.put(Layer())
    assert in_flight.take(0).index == 0
    assert in_flight.take(None) is None
    assert in_flight.take(2) is None
    in_flight.clear()
