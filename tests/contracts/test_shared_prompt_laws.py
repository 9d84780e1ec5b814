"""The laws of prompts that recipes share: whatever a recipe's methods are, it is as if it had read the prompt alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch

import pith
from contracts.tiny import tiny, tokens
from contracts.variants import METHODS, READINGS, RETENTIONS, STORAGES, everything, tight
from pith.attention.shared_prompt import sharing_prompts
from pith.core import PithWarning

CACHE_METHODS = [*RETENTIONS, *STORAGES, *READINGS]

SHARED = {"snapkv", "h2o", "tova", "kivi", "kvzip", "quest", "ada_kv", "pyramid_kv", "expected_attention"}
"""Methods that act behind the prompt's attention, by their papers."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        yield


def prompt_of(padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    ids = tokens(2, 24, seed=3)
    mask = torch.ones_like(ids)
    if padded:
        mask[1, :5] = 0
        ids[1, :5] = 0
    return ids, mask


def read(model, recipe: str, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    """The logits of the prompt and of five decoded tokens, and what the cache then holds."""
    with pith.applied(model, recipe):
        out = model(ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0), use_cache=True)
        found = [out.logits]
        for _ in range(5):
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            out = model(
                out.logits[:, -1:].argmax(-1),
                attention_mask=mask,
                position_ids=mask.sum(-1, keepdim=True) - 1,
                past_key_values=out.past_key_values,
                use_cache=True,
            )
            found.append(out.logits)
    for layer in out.past_key_values.served():
        store = layer.store
        real = store.real.unsqueeze(-1)  # other slots hold what may be
        found += [store.positions.clone(), store.keys * real, store.values * real]
        found += [] if store.carried is None else [store.carried * store.real]
    return found


def assert_equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("method", "padded"),
    [*((method, True) for method in CACHE_METHODS), *((method, False) for method in sorted(SHARED))],
)
def test_a_shared_prompt_gives_what_a_prompt_of_its_own_gives(method: str, padded: bool) -> None:
    model, (ids, mask) = tiny("llama_gqa"), prompt_of(padded)
    recipes = [tight(method), "streaming_llm(budget=0.5)", "snapkv(budget=0.5)", tight(method)]
    recipes += [] if method in STORAGES else [everything(method)]
    alone = [read(model, recipe, ids, mask) for recipe in recipes]
    with sharing_prompts() as shared:
        together = [read(model, recipe, ids, mask) for recipe in recipes]
    for found, expected in zip(together, alone, strict=True):
        assert_equal(found, expected)
    assert shared.forwards >= 1
    if method in SHARED:
        assert shared.forwards + shared.taken_over >= 3, "the method did not share"


@pytest.mark.parametrize("name", ["gemma3", "gpt_oss", "mistral_sliding", "qwen3_next", "phi3", "gpt_neox"])
def test_a_shared_prompt_holds_on_every_architecture(name: str) -> None:
    model, (ids, mask) = tiny(name), prompt_of(padded=True)
    recipes = ["snapkv(budget=0.4)", "kivi(group_size=8, residual_length=8)", "kvzip(budget=0.4)", "tova(budget=0.4)"]
    alone = [read(model, recipe, ids, mask) for recipe in recipes]
    with sharing_prompts() as shared:
        together = [read(model, recipe, ids, mask) for recipe in recipes]
    for found, expected in zip(together, alone, strict=True):
        assert_equal(found, expected)
    served = name != "mistral_sliding"  # whose every layer is left alone
    assert (shared.forwards, shared.taken_over) == ((1, 3) if served else (0, 0))


def test_another_prompt_is_read_anew() -> None:
    model, recipe = tiny("llama_gqa"), "snapkv(budget=0.4)"
    prompts = [tokens(2, 24, seed=seed) for seed in (1, 2)] + [tokens(2, 20, seed=1)]
    alone = [read(model, recipe, ids, torch.ones_like(ids)) for ids in prompts]
    with sharing_prompts() as shared:
        together = [read(model, recipe, ids, torch.ones_like(ids)) for ids in prompts]
    assert (shared.forwards, shared.taken_over) == (3, 0)
    for found, expected in zip(together, alone, strict=True):
        assert_equal(found, expected)


def test_tensors_that_a_cache_wrote_to_are_not_given_to_another() -> None:
    model, (ids, mask) = tiny("llama_gqa"), prompt_of(padded=False)
    expected = read(model, "snapkv(budget=0.4)", ids, mask)
    with sharing_prompts() as shared:
        with pith.applied(model, "snapkv(budget=1.0)"):
            positions = mask.cumsum(-1) - 1
            cache = model(ids, attention_mask=mask, position_ids=positions, use_cache=True).past_key_values
        known = next(iter(shared._read.layers.values()))
        known.key.zero_()
        assert_equal(read(model, "snapkv(budget=0.4)", ids, mask), expected)
        assert shared.forwards == 2
    assert cache.get_seq_length() == 24


def test_gradients_are_not_shared() -> None:
    model, (ids, mask) = tiny("llama_gqa"), prompt_of(padded=False)
    with torch.enable_grad(), sharing_prompts() as shared, pith.applied(model, "snapkv(budget=0.4)"):
        out = model(ids, attention_mask=mask, use_cache=True)
        assert out.logits.requires_grad
    assert (shared.forwards, shared.taken_over) == (0, 0)


def test_nothing_is_shared_outside_of_the_block() -> None:
    model, (ids, mask) = tiny("llama_gqa"), prompt_of(padded=False)
    with sharing_prompts() as shared:
        read(model, "snapkv(budget=0.4)", ids, mask)
    read(model, "snapkv(budget=0.4)", ids, mask)
    assert (shared.forwards, shared.taken_over) == (1, 0)
    assert set(METHODS) >= SHARED
