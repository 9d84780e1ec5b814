"""Runs come in pairs by turns, and medians are taken of them."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from pith.core import Recipe
from pith.measure import seconds
from pith.measure.seconds import Run, run_once, run_pairs, speed, timed_prompt
from pith.models import Subject, builtin

loaded = cache(builtin)


def subject(recipe: str | None = None) -> Subject:
    return Subject(*loaded(), None if recipe is None else Recipe.parse(recipe))


def test_a_run_weighs_the_cache_after_the_prompt_and_after_decoding() -> None:
    config, prompt = loaded()[0].config, torch.arange(3, 103)[None]
    run = run_once(subject(), prompt, tokens=8)
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert (run.prefill_bytes, run.decoded_bytes) == (100 * token, 108 * token)
    assert run.prefill > 0
    assert run.decode > 0


def test_a_run_of_a_recipe_runs_the_recipe_and_takes_it_back() -> None:
    before = loaded()[0].config._attn_implementation
    run = run_once(subject("snapkv(budget=0.25, window=8)"), torch.arange(3, 103)[None], tokens=2)
    dense = run_once(subject(), torch.arange(3, 103)[None], tokens=2)
    assert run.prefill_bytes / dense.prefill_bytes == pytest.approx(0.25, rel=0.05)
    assert loaded()[0].config._attn_implementation == before


def test_pairs_alternate_and_the_first_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    told: list[tuple[int, int]] = []

    def fake(who: Subject, prompt: torch.Tensor) -> Run:
        order.append(str(who.recipe))
        return Run(float(len(order)), float(len(order)), 1, 1)

    monkeypatch.setattr(seconds, "run_once", fake)
    recipe = "snapkv(budget=0.25)"
    mine, dense = run_pairs(subject(recipe), torch.zeros(1, 4).long(), 3, lambda *done: told.append(done))
    assert order == ["None", recipe, recipe, "None", "None", recipe, recipe, "None"]
    assert [r.prefill for r in mine] == [3, 6, 7]
    assert [r.prefill for r in dense] == [4, 5, 8]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_speed_is_the_median_of_pairs() -> None:
    mine = [Run(2.0, 10.0, 0, 0), Run(4.0, 30.0, 0, 0), Run(9.0, 20.0, 0, 0)]
    dense = [Run(1.0, 10.0, 0, 0), Run(1.0, 10.0, 0, 0), Run(3.0, 10.0, 0, 0)]
    found = speed(mine, dense)
    assert (found.prefill, found.dense_prefill, found.prefill_ratio) == (4, 1, 3)
    assert (found.decode, found.dense_decode, found.decode_ratio) == (20, 10, 2)
    assert found.spread == 0.5  # ratios 1, 3 and 2
    assert found.runs == 3


def test_the_prompt_is_text_of_just_that_length(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = loaded()[1]
    prompt = timed_prompt(tokenizer, 50, seed=0)
    assert prompt.shape == (1, 50)
    assert prompt[0, 0] == tokenizer.bos_token_id
    assert torch.equal(prompt, timed_prompt(tokenizer, 50, seed=0))
    assert not torch.equal(prompt, timed_prompt(tokenizer, 50, seed=1))
    monkeypatch.setattr(seconds, "heldout_text", lambda: "a short text, wrapped round")
    assert timed_prompt(tokenizer, 200, seed=0).shape == (1, 200)
