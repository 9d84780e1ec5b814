"""Runs come in pairs by turns, and medians are taken of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch

from pith.core import ModelError, Recipe
from pith.measure import Speed, seconds
from pith.measure.seconds import Run, Turn, ratio_of, run_once, run_pairs, run_rounds, speed, timed_prompt
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
    assert run.peak is None, "the processor has no allocator that counts"


def test_a_run_of_a_recipe_runs_the_recipe_and_takes_it_back() -> None:
    before = loaded()[0].config._attn_implementation
    run = run_once(subject("snapkv(budget=0.25, window=8)"), torch.arange(3, 103)[None], tokens=2)
    dense = run_once(subject(), torch.arange(3, 103)[None], tokens=2)
    assert run.prefill_bytes / dense.prefill_bytes == pytest.approx(0.25, rel=0.05)
    assert loaded()[0].config._attn_implementation == before


def fake_runs(monkeypatch: pytest.MonkeyPatch, times: Callable[[int], float]) -> list[str]:
    """Runs that take what `times` says of their number, from 1 on; whose they were."""
    order: list[str] = []

    def fake(who: Subject, prompt: torch.Tensor) -> Run:
        order.append(str(who.recipe))
        return Run(times(len(order)), times(len(order)), 1, 1)

    monkeypatch.setattr(seconds, "run_once", fake)
    return order


def test_pairs_alternate_and_the_first_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    order = fake_runs(monkeypatch, lambda number: 1.0 + number / 1000)
    told: list[tuple[int, int]] = []
    recipe = "snapkv(budget=0.25)"
    mine, dense = run_pairs(subject(recipe), subject(), torch.zeros(1, 4).long(), 3, lambda *done: told.append(done))
    assert order == ["None", recipe, recipe, "None", "None", recipe, recipe, "None"]
    assert [r.prefill for r in mine] == [1.003, 1.006, 1.007]
    assert [r.prefill for r in dense] == [1.004, 1.005, 1.008]
    assert told == [(0, 6), *((n, 6) for n in range(7))]


def test_noise_asks_for_more_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_runs(monkeypatch, lambda number: 1.0 if number % 3 else 2.0)
    told: list[tuple[int, int]] = []
    mine, dense = run_pairs(
        subject("snapkv()"), subject(), torch.zeros(1, 4).long(), 3, lambda *done: told.append(done)
    )
    assert len(mine) == len(dense) == 12
    assert told[:8] == [(0, 6), *((n, 6) for n in range(6)), (6, 8)]
    assert told[-1] == (24, 24)


def test_more_pairs_come_only_while_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_runs(monkeypatch, lambda number: 1.0 if number % 3 else 2.0)
    monkeypatch.setattr(seconds, "LONGER", -1.0)
    assert len(run_pairs(subject("snapkv()"), subject(), torch.zeros(1, 4).long(), 3)[0]) == 3


def test_long_runs_are_warmed_up_briefly_and_need_few_pairs_where_they_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def fake(who: Subject, prompt: torch.Tensor) -> Run:
        read.append(prompt.shape[1])
        return Run(prompt.shape[1] / 100, 0.01 * (1 + jitter * (len(read) % 3)), 1, 1)

    monkeypatch.setattr(seconds, "run_once", fake)
    prompt, jitter = torch.zeros(1, 512).long(), 0.0
    for runs, pairs in ((5, 3), (2, 2), (6, 6)):
        read.clear()
        assert len(run_pairs(subject("snapkv()"), subject(), prompt, runs)[0]) == pairs
        assert read == [64, 64, 64, *[512] * 2 * pairs]
    jitter = 0.5
    assert len(run_pairs(subject("snapkv()"), subject(), prompt, 5)[0]) > 3


def test_subjects_are_timed_in_rounds_around_one_run_of_the_dense_model(monkeypatch: pytest.MonkeyPatch) -> None:
    order = fake_runs(monkeypatch, lambda number: 1.0 + number / 1000)
    names = ["snapkv(budget=0.25)", "tova(budget=0.25)", "kivi(bits=4)"]
    turns, told = [Turn(subject(name)) for name in names], []
    run_rounds(turns, subject(), torch.zeros(1, 4).long(), 2, lambda *done: told.append(done))
    middle = [*names[:2], "None", names[2]]
    assert order == ["None", *names, *middle, *middle[::-1]]
    assert [[run.prefill for run in turn.mine] for turn in turns] == [[1.005, 1.012], [1.006, 1.011], [1.008, 1.009]]
    assert [[run.prefill for run in turn.dense] for turn in turns] == [[1.007, 1.01]] * 3
    assert told == [(0, 8), *((n, 8) for n in range(9))]


def test_a_subject_whose_ratios_agree_is_not_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, int] = {}

    def fake(who: Subject, prompt: torch.Tensor) -> Run:
        name = str(who.recipe)
        calls[name] = calls.get(name, 0) + 1
        return Run(1.0, 1.0 if name != "tova()" or calls[name] % 3 else 2.0, 1, 1)

    monkeypatch.setattr(seconds, "run_once", fake)
    turns, told = [Turn(subject("snapkv()")), Turn(subject("tova()"))], []
    run_rounds(turns, subject(), torch.zeros(1, 4).long(), 3, lambda *done: told.append(done))
    assert [len(turn.mine) for turn in turns] == [len(turn.dense) for turn in turns] == [3, 12]
    assert calls == {"None": 13, "snapkv()": 4, "tova()": 13}
    assert told[-1] == (3 * 3 + 9 * 2,) * 2


def test_one_that_cannot_be_run_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(who: Subject, prompt: torch.Tensor) -> Run:
        if str(who.recipe) == "tova()":
            raise ModelError("it has no rotary positions")
        return Run(1.0, 1.0, 1, 1)

    monkeypatch.setattr(seconds, "run_once", fake)
    turns = [Turn(subject("tova()")), Turn(subject("snapkv()"))]
    run_rounds(turns, subject(), torch.zeros(1, 4).long(), 3)
    assert str(turns[0].error) == "it has no rotary positions"
    assert not turns[0].mine
    assert len(turns[1].mine) == 3
    with pytest.raises(ModelError, match="rotary"):
        run_pairs(subject("tova()"), subject(), torch.zeros(1, 4).long(), 3)


def test_few_pairs_promise_little() -> None:
    speeds = [Speed(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, pairs) for pairs in (1, 3, 5, 6, 20)]
    assert [one.held for one in speeds] == [0.0, 0.75, 0.9375, 0.95, 0.95]


def test_speed_is_the_median_of_pairs() -> None:
    mine = [Run(2.0, 10.0, 0, 0), Run(4.0, 30.0, 0, 0), Run(9.0, 20.0, 0, 0)]
    dense = [Run(1.0, 10.0, 0, 0), Run(1.0, 10.0, 0, 0), Run(3.0, 10.0, 0, 0)]
    found = speed(mine, dense)
    assert (found.prefill, found.dense_prefill, found.prefill_ratio) == (4, 1, 3)
    assert (found.decode, found.dense_decode, found.decode_ratio) == (20, 10, 2)
    assert found.spread == 0.5  # ratios 1, 3 and 2
    assert found.prefill_spread == pytest.approx(1 / 3)  # ratios 2, 4 and 3
    assert found.runs == 3


def test_the_spread_is_that_of_the_median_not_of_the_farthest_pair() -> None:
    ratios = [1.0, 1.01, 0.99, 1.02, 0.98, 1.03, 0.97, 1.04, 5.0]
    assert ratio_of(ratios, [1.0] * 9) == (1.01, pytest.approx(0.03 / 1.01))  # 0.98 to 1.04
    assert ratio_of(ratios[:5], [1.0] * 5) == (1.0, pytest.approx(0.02))
    assert ratio_of([3.0], [2.0]) == (1.5, 0.0)


@pytest.mark.parametrize(
    ("ratio", "spread", "known"),
    [
        (0.5, 0.4, True),  # 0.30 to 0.70: faster
        (0.8, 0.4, False),  # 0.48 to 1.12
        (1.0, 0.09, True),  # about as fast
        (1.0, 0.11, False),
        (1.05, 0.04, True),  # 1.008 to 1.092: slower
        (1.5, 0.5, False),  # 0.75 to 2.25
        (3.0, 0.6, True),  # 1.2 to 4.8: slower
    ],
)
def test_a_ratio_tells_something_when_its_interval_leaves_one_conclusion(
    ratio: float, spread: float, known: bool
) -> None:
    found = Speed(1.0, 1.0, ratio, 1.0, 1.0, ratio, spread, 5, spread)
    assert found.decode_tells is known
    assert found.prefill_tells is known


def test_the_prompt_is_text_of_just_that_length(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = loaded()[1]
    prompt = timed_prompt(tokenizer, 50, seed=0)
    assert prompt.shape == (1, 50)
    assert prompt[0, 0] == tokenizer.bos_token_id
    assert torch.equal(prompt, timed_prompt(tokenizer, 50, seed=0))
    assert not torch.equal(prompt, timed_prompt(tokenizer, 50, seed=1))
    monkeypatch.setattr(seconds, "heldout_text", lambda: "a short text, wrapped round")
    assert timed_prompt(tokenizer, 200, seed=0).shape == (1, 200)
