"""Padding is known by the mask alone: in chunks, token by token, and in rows without a token."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
import transformers as hf

import pith
from contracts.tiny import tiny, tokens
from contracts.variants import BY_SLOT, EVICTIONS, READINGS, RETENTIONS, STORAGES, at_budget, everything, tight
from pith.attention.numbering import Numbering, valid_tokens
from pith.core import InputError, ModelError, PithWarning, Recipe

ALL = [*RETENTIONS, *STORAGES, *READINGS]
AT_ONCE = ["kvzip", "pyramid_infer"]
"""Methods that act on the first forward alone, in which each row must begin."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", PithWarning)
        yield


def padded_batch(*lengths: int) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    rows, longest = [tokens(1, n, seed=n) for n in lengths], max(lengths)
    pad = torch.nn.functional.pad
    batch = torch.cat([pad(row, (longest - row.shape[1], 0)) for row in rows])
    return rows, batch, torch.cat([pad(torch.ones_like(row), (longest - row.shape[1], 0)) for row in rows])


def read(model: hf.PreTrainedModel, cache: hf.Cache | None, ids, mask, chunk: int) -> torch.Tensor:
    """The logits of the last token, read in chunks."""
    places = (mask.cumsum(1) - 1).clamp(min=0)
    for start in range(0, ids.shape[1], chunk):
        end = min(start + chunk, ids.shape[1])
        out = model(
            ids[:, start:end],
            attention_mask=mask[:, :end],
            position_ids=places[:, start:end],
            past_key_values=cache,
            use_cache=True,
        )
    return out.logits[:, -1]


def cache_of(recipe: str, model: hf.PreTrainedModel) -> hf.Cache:
    try:
        return Recipe.parse(recipe).cache(model)
    except ModelError as error:
        model.set_attn_implementation("sdpa")
        pytest.skip(str(error))


@pytest.mark.parametrize("chunk", [1, 5])
@pytest.mark.parametrize("method", [m for m in ALL if m not in [*STORAGES, *AT_ONCE]])
def test_a_padded_batch_read_in_parts_is_dense_where_everything_is_kept(method: str, chunk: int) -> None:
    """A whole chunk of the short row is padding."""
    model = tiny("llama_gqa")
    _, batch, mask = padded_batch(23, 6)
    expected = read(model, hf.DynamicCache(config=model.config), batch, mask, chunk)
    got = read(model, cache_of(everything(method), model), batch, mask, chunk)
    model.set_attn_implementation("sdpa")
    assert (got - expected).abs().max() < 1e-4


@pytest.mark.parametrize("chunk", [1, 5])
@pytest.mark.parametrize("method", [m for m in ALL if m not in [*BY_SLOT, *AT_ONCE, "deco_quant"]])
def test_a_padded_row_read_in_parts_gives_what_it_gives_alone(method: str, chunk: int) -> None:
    """The padding is a multiple of the chunk, so that the row is cut at the same places alone.

    Budgets are counts of tokens, since of a prompt of one token a share is that token, and two keys may score alike.
    Decoded tokens of deco_quant are factored by the slot, as those of kivi.
    """
    model, recipe = tiny("llama_gqa"), at_budget(method, 12) if method in EVICTIONS else tight(method)
    rows, batch, mask = padded_batch(35, 20, 5)
    together = read(model, cache_of(recipe, model), batch, mask, chunk)
    for i, row in enumerate(rows):
        alone = read(model, cache_of(recipe, model), row, torch.ones_like(row), chunk)
        assert (together[i] - alone[0]).abs().max() < 1e-3
    model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("method", AT_ONCE)
def test_a_row_that_begins_late_is_refused_where_the_first_forward_counts(method: str) -> None:
    model = tiny("llama_gqa")
    _, batch, mask = padded_batch(23, 6)
    with pytest.raises(InputError, match="row 1 of the batch is only padding in the first forward"):
        read(model, cache_of(tight(method), model), batch, mask, 5)
    model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("method", ALL)
def test_a_row_without_a_token_leaves_the_others_as_they_are(method: str) -> None:
    model, ids = tiny("llama_gqa"), tokens(2, 30)
    mask = torch.ones_like(ids)
    mask[1] = 0
    together = read(model, cache_of(tight(method), model), ids, mask, 30)
    alone = read(model, cache_of(tight(method), model), ids[:1], mask[:1], 30)
    model.set_attn_implementation("sdpa")
    assert torch.isfinite(together).all()
    assert (together[0] - alone[0]).abs().max() < 1e-3


@pytest.mark.parametrize("recipe", ["snapkv(budget=1.0)", "streaming_llm(budget=512)", "h2o(budget=512)", "dense"])
def test_generate_reads_a_padded_prompt_in_chunks(recipe: str) -> None:
    model, ids = tiny("llama_gqa"), tokens(2, 24)
    mask = torch.ones_like(ids)
    mask[0, :13] = 0
    how = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "prefill_chunk_size": 8}
    expected = model.generate(ids, **how)
    with pith.applied(model, recipe):
        assert torch.equal(model.generate(ids, **how), expected)


def test_padding_after_a_row_has_begun_is_refused() -> None:
    numbering = Numbering()
    later = torch.tensor([[True, True], [False, False]])
    numbering.check_left_padding(later)  # the second row's tokens may all come later
    numbering.count(later, 2, 2, torch.device("cpu"))
    numbering.check_left_padding(later)
    with pytest.raises(InputError, match="row 0 ends in padding"):
        numbering.check_left_padding(~later)
    fresh = Numbering()
    with pytest.raises(InputError, match="row 1 ends in padding"):
        fresh.check_left_padding(torch.tensor([[True, True], [True, False]]))


def test_positions_count_the_tokens_of_a_row() -> None:
    numbering, cpu = Numbering(), torch.device("cpu")
    assert numbering.count(None, 2, 2, cpu).tolist() == [[[0, 1]], [[0, 1]]]
    valid = torch.tensor([[True, False, True], [True, True, True]])
    assert numbering.count(valid, 2, 3, cpu).tolist() == [[[2, -1, 3]], [[2, 3, 4]]]
    assert numbering.count(None, 2, 1, cpu).tolist() == [[[4]], [[5]]]
    numbering.uncount(torch.tensor([[-1, 3, 4], [3, 4, 5]]))
    assert numbering.seen == 3
    numbering.select(torch.tensor([1]))
    assert numbering.count(None, 1, 1, cpu).tolist() == [[[3]]]


def test_a_mask_of_four_dimensions_is_refused() -> None:
    assert valid_tokens(None, 3) is None
    with pytest.raises(InputError, match="4 dimensions"):
        valid_tokens(torch.ones(1, 1, 3, 3), 3)
