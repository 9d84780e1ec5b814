"""A copy of a cache continues as the original would, and neither disturbs the other."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch

import pith
from contracts.tiny import tiny, tokens
from pith.core import InputError, Recipe

RECIPES = [
    "dense",
    "streaming_llm(budget=12)",
    "h2o(budget=12)",
    "quest(token_budget=16, page_size=4)",
    "kivi(residual_length=16, group_size=16)",
    "ada_kv(snapkv(budget=12, window=4))",
    "sir_llm(budget=16)",
    "kvzip(budget=0.5)",
    "pyramid_infer(min_context_length=8, prefill_decay_ratio=0.5, exceed_length_to_compress=4)",
]
FOLLOWED = ["sir_llm(budget=16)", "kvzip(budget=0.5)", "pyramid_infer(min_context_length=8)"]


@torch.no_grad()
def continued(cache: object, seed: int) -> torch.Tensor:
    """Logits of a further turn and of 9 decoded tokens."""
    ids = tokens(1, 15, seed)
    parts = ids.split([6, *[1] * 9], dim=1)
    return torch.cat([tiny("llama_gqa")(part, past_key_values=cache).logits[:, -1] for part in parts])


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("read", [40, 0])
def test_a_copy_continues_as_the_original_would(recipe: str, read: int) -> None:
    model, made = tiny("llama_gqa"), Recipe.parse(recipe)
    with pith.applied(model, "dense"), torch.no_grad():  # so that the model's attention is restored
        caches = [made.cache(model) for _ in range(2)]
        for cache in caches if read else []:
            model(tokens(1, read), past_key_values=cache)
        mine, expected = caches
        copied = copy.deepcopy(mine)
        again = copy.deepcopy(copied)
        other, same = continued(expected, seed=2), continued(copied, seed=2)
        assert torch.equal(same, other)
        assert copied.get_seq_length() == expected.get_seq_length() == read + 15
        assert mine.get_seq_length() == read
        assert [layer.store.length for layer in copied.served()] == [layer.store.length for layer in expected.served()]
        assert torch.equal(continued(mine, seed=2), other)
        assert torch.equal(continued(again, seed=2), other)
        groups = {id(cache.layers[0].group) for cache in (mine, copied, again, expected)}
        assert len(groups) == 4


@pytest.mark.parametrize("recipe", FOLLOWED)
def test_a_copy_does_not_copy_the_model_and_lives_on_its_own(recipe: str) -> None:
    model = tiny("llama_gqa")
    hooks = len(model.model._forward_hooks)
    with pith.applied(model, "dense"), torch.no_grad():
        cache = Recipe.parse(recipe).cache(model)
        model(tokens(1, 40), past_key_values=cache)
        copied = copy.deepcopy(cache)
        assert copied.companion is not cache.companion
        assert copied.companion.model is model
        gone = weakref.ref(cache)
        del cache
        gc.collect()
        assert gone() is None
        model(tokens(1, 1), past_key_values=copied)
        del copied
        gc.collect()
    assert len(model.model._forward_hooks) == hooks


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_pickled_cache_continues_or_is_refused(recipe: str) -> None:
    model = tiny("llama_gqa")
    with pith.applied(model, "dense"), torch.no_grad():
        cache = Recipe.parse(recipe).cache(model)
        model(tokens(1, 40), past_key_values=cache)
        if cache.companion is not None:
            with pytest.raises(InputError, match=f"a cache of {recipe.split('(')[0]} cannot be pickled"):
                pickle.dumps(cache)
            return
        loaded = pickle.loads(pickle.dumps(cache))
        assert torch.equal(continued(loaded, seed=2), continued(cache, seed=2))


def test_a_shallow_copy_and_a_copy_with_gradients_are_refused() -> None:
    model = tiny("llama_gqa")
    with pith.applied(model, "dense"):
        cache = model(tokens(1, 8)).past_key_values
    with pytest.raises(InputError, match=r"use copy\.deepcopy"):
        copy.copy(cache)
    with pytest.raises(InputError, match="read with gradients"):
        copy.deepcopy(cache)
