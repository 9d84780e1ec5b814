"""The laws that every registered storage and reading keeps, alone and with every other question answered."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator

import pytest
import torch

from contracts.test_eviction_laws import all_real, cache_bytes, extras, read_and_decode, restore
from contracts.tiny import MAKERS, tiny, tokens
from contracts.variants import BY_SLOT, METHODS, READINGS, RETENTIONS, STORAGES, everything, tight
from pith.attention import PithCache
from pith.core import DenseCache, InputError, ModelError, PithWarning, Recipe, RecipeError

PAIRS = [
    *itertools.product(RETENTIONS, STORAGES),
    *itertools.product(RETENTIONS, READINGS),
    *itertools.product(STORAGES, READINGS),
]
OTHER_STEPS = [("lag_kv", "recycled_attention")]
"""An eviction in any row makes every row read everything at the next step: in a batch at other times than alone."""

SOME = ["llama_gqa", "gemma3", "gpt_oss"]
"""Grouped queries; sliding layers between; sinks in the softmax."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        yield


def served(text: str, name: str) -> Recipe:
    """The recipe, if it can be and serves the model; else the test is skipped, with the reason that users are given."""
    try:
        recipe = Recipe.parse(text)
        recipe.cache(tiny(name))
    except (RecipeError, ModelError) as error:
        restore(tiny(name))
        pytest.skip(str(error))
    return recipe


def rows_of(*lengths: int) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Rows alone, and together as a batch that is padded on the left, with its mask."""
    rows = [tokens(1, n, seed=n) for n in lengths]
    longest = max(lengths)
    pad = torch.nn.functional.pad
    batch = torch.cat([pad(r, (longest - r.shape[1], 0)) for r in rows])
    return rows, batch, torch.cat([pad(all_real(r), (longest - r.shape[1], 0)) for r in rows])


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("reading", READINGS)
def test_reading_everything_is_the_dense_model(name: str, reading: str) -> None:
    model, prompt, decoded = tiny(name), tokens(2, 41), tokens(2, 7, seed=1)
    recipe = served(everything(reading), name)
    dense, _ = read_and_decode(model, None, prompt, all_real(prompt), decoded)
    read, _ = read_and_decode(model, recipe, prompt, all_real(prompt), decoded)
    assert (read - dense).abs().max() < 2e-5


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("method", [m for m in [*STORAGES, *READINGS] if m not in BY_SLOT])
def test_a_padded_row_gives_what_it_gives_alone(name: str, method: str) -> None:
    model, recipe, decoded = tiny(name), served(tight(method), name), tokens(3, 5, seed=1)
    rows, batch, mask = rows_of(45, 29, 9)
    together, _ = read_and_decode(model, recipe, batch, mask, decoded)
    for i, row in enumerate(rows):
        alone, _ = read_and_decode(model, recipe, row, all_real(row), decoded[i : i + 1])
        assert (together[i] - alone[0]).abs().max() < 1e-3


@pytest.mark.parametrize("storage", STORAGES)
def test_a_storage_holds_what_it_claims(storage: str) -> None:
    """Of one prompt of 1200 tokens; positions, which take 4 bytes a token, left out on both sides."""
    model, prompt = tiny("llama_gqa"), tokens(1, 1200)
    recipe = Recipe.parse(METHODS[storage].name)
    _, dense = read_and_decode(model, Recipe(), prompt, all_real(prompt), prompt[:, :0])
    _, cache = read_and_decode(model, recipe, prompt, all_real(prompt), prompt[:, :0])
    whole = cache_bytes(dense) - extras(dense)
    claimed = recipe.methods[0].claimed(
        DenseCache(tokens=1200, token_bytes=whole // 1200, layers=2, head_dim=16, number_bytes=4)
    )
    assert (cache_bytes(cache) - extras(cache)) / whole == pytest.approx(claimed, rel=0.15)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda p: p)
def test_pairs_answer_in_batches_as_alone(name: str, first: str, second: str) -> None:
    model, recipe, decoded = tiny(name), served(f"{tight(first)} + {tight(second)}", name), tokens(3, 5, seed=1)
    rows, batch, mask = rows_of(45, 29, 9)
    together, cache = read_and_decode(model, recipe, batch, mask, decoded)
    assert torch.isfinite(together).all()
    # a number at the border of two codes may tip
    tolerance = 0.5 if first in STORAGES or second in STORAGES else 1e-3
    for i, row in enumerate(rows):
        alone, own = read_and_decode(model, recipe, row, all_real(row), decoded[i : i + 1])
        assert torch.isfinite(alone).all()
        if same_kept(cache, own, i) and not {first, second} & set(BY_SLOT) and (first, second) not in OTHER_STEPS:
            assert (together[i] - alone[0]).abs().max() < tolerance


def same_kept(batch: PithCache, alone: PithCache, row: int) -> bool:
    """Whether a row keeps in the batch what it keeps alone: codes may tip a score."""
    for mine, own in zip(batch.layers, alone.layers, strict=True):
        if hasattr(mine, "store"):
            count = max(mine.store.positions.shape[1], own.store.positions.shape[1])
            held, alone_held = (s.positions.expand(-1, count, -1) for s in (mine.store, own.store))
            for heads, kept in zip(held[row], alone_held[0], strict=True):
                if heads[heads >= 0].tolist() != kept[kept >= 0].tolist():
                    return False
    return True


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda p: p)
def test_pairs_in_chunks_turns_and_rows(first: str, second: str) -> None:
    model, recipe = tiny("llama_gqa"), served(f"{tight(first)} + {tight(second)}", "llama_gqa")
    cache, prompt = recipe.cache(model), tokens(2, 150)
    for chunk in (*prompt[:, :100].split(45, dim=1), *prompt[:, 100:105].split(1, dim=1), prompt[:, 105:]):
        assert torch.isfinite(model(chunk, past_key_values=cache).logits).all()
    cache.batch_select_indices(torch.tensor([1, 0, 1]))
    logits = model(tokens(3, 1, seed=3), past_key_values=cache).logits
    restore(model)
    assert torch.isfinite(logits).all()
    assert cache.get_seq_length() == 151


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda p: p)
def test_pairs_generate(first: str, second: str) -> None:
    import pith

    model, recipe = tiny("llama_gqa"), served(f"{tight(first)} + {tight(second)}", "llama_gqa")
    prompt = tokens(2, 64)
    mask = all_real(prompt)
    mask[1, :20] = 0
    with pith.applied(model, recipe):
        for options in ({"do_sample": False}, {"num_beams": 3}):
            try:
                written = model.generate(prompt, attention_mask=mask, max_new_tokens=8, **options)
            except InputError as error:
                pytest.skip(str(error))
            assert written.shape == (2, 72)
