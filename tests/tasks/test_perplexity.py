"""Perplexity is what it says: teacher-forced, token by token, behind a context that is read whole."""

from __future__ import annotations

import copy
import math
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pith.core import InputError, Recipe
from pith.models import Subject, builtin
from pith.tasks import Perplexity
from pith.tasks.heldout import heldout_text
from pith.texts import held_out_prose

SHORT = Perplexity(length=24, scored=6, count=3)


loaded = cache(builtin)


def subject(recipe: str | None = None) -> Subject:
    model, tokenizer = loaded()
    return Subject(model, tokenizer, None if recipe is None else Recipe.parse(recipe))


@torch.no_grad()
def in_one_forward(task: Perplexity, plain: Subject) -> list[float]:
    """Each window's mean negative log-likelihood, from one forward over the whole window."""
    windows = task.windows(plain.tokenizer)
    logits = plain.model(windows).logits[:, task.length - 1 : -1]
    losses = F.cross_entropy(logits.flatten(0, 1), windows[:, task.length :].flatten(), reduction="none")
    return losses.view(task.count, task.scored).mean(dim=1).tolist()


@pytest.mark.parametrize("recipe", [None, "dense", "snapkv(budget=1.0)", "streaming_llm(budget=1.0)"])
def test_the_dense_model_scores_as_in_one_forward(recipe: str | None) -> None:
    expected = in_one_forward(SHORT, subject())
    found = SHORT.run(subject(recipe))
    assert found.scores == pytest.approx(expected, abs=1e-4)
    assert found.value == pytest.approx(math.exp(sum(expected) / 3), rel=1e-4)
    assert found.low < found.value < found.high
    assert math.log(found.high / found.value) == pytest.approx(math.log(found.value / found.low)), "even in logarithms"
    assert found.n == 3


@pytest.mark.parametrize("recipe", [None, "snapkv(budget=0.5, window=4)", "streaming_llm(budget=0.5)"])
def test_the_score_does_not_depend_on_the_batch_size(recipe: str | None) -> None:
    whole, alone = (SHORT.run(subject(recipe), batch_size=size) for size in (8, 1))
    assert whole.scores == pytest.approx(alone.scores, abs=1e-5)


def test_methods_act_after_the_context_and_at_every_step() -> None:
    dense = SHORT.run(subject()).scores
    first = Perplexity(length=24, scored=1, count=3)
    # a prompt is attended to whole before it is trimmed, so the first scored token is the dense model's
    assert first.run(subject("streaming_llm(budget=8)")).scores == pytest.approx(first.run(subject()).scores, abs=1e-5)
    for recipe in ("streaming_llm(budget=8)", "snapkv(budget=8, window=4)"):
        assert SHORT.run(subject(recipe)).scores != pytest.approx(dense, abs=1e-3)


def test_one_scored_token() -> None:
    task = Perplexity(length=8, scored=1, count=2)
    assert task.run(subject()).scores == pytest.approx(in_one_forward(task, subject()), abs=1e-4)


def test_windows_are_spread_begin_as_a_sequence_and_follow_the_seed() -> None:
    tokenizer = loaded()[1]
    task = Perplexity(length=16, scored=4, count=4)
    windows = task.windows(tokenizer)
    assert windows.shape == (4, 20)
    assert windows[:, 0].tolist() == [tokenizer.bos_token_id] * 4
    assert torch.equal(windows, task.windows(tokenizer))
    assert not torch.equal(windows, Perplexity(length=16, scored=4, count=4, seed=1).windows(tokenizer))


def test_a_text_file(tmp_path: Path) -> None:
    tokenizer = loaded()[1]
    path = tmp_path / "text.txt"
    path.write_text(" ".join(map(str, range(40))), encoding="utf-8")
    tokens = tokenizer(path.read_text(), add_special_tokens=False).input_ids
    windows = Perplexity(text=str(path), length=8, scored=3, count=2).windows(tokenizer)
    first, second = (next(i for i in range(len(tokens)) if tokens[i : i + 10] == row[1:].tolist()) for row in windows)
    assert first + 10 <= len(tokens) // 2 <= second <= len(tokens) - 10, "each half has a window"


@pytest.mark.parametrize("recipe", [None, "snapkv(budget=1.0)"])
@pytest.mark.parametrize("chunk", [2, 4, 5, 9])
def test_chunks_change_nothing_where_nothing_is_dropped(chunk: int, recipe: str | None) -> None:
    expected = in_one_forward(SHORT, subject())
    found = Perplexity(length=24, scored=6, count=3, chunk=chunk).run(subject(recipe), batch_size=2)
    assert found.scores == pytest.approx(expected, abs=1e-4)


def test_methods_act_after_every_chunk() -> None:
    recipe = "streaming_llm(budget=8)"
    scores = [Perplexity(length=24, scored=9, count=2, chunk=n).run(subject(recipe)).scores for n in (1, 4, 8)]
    assert scores[0] != pytest.approx(scores[1], abs=1e-3)
    assert scores[1] != pytest.approx(scores[2], abs=1e-3)


@torch.no_grad()
def test_the_curve_is_the_mean_loss_along_the_scored_tokens() -> None:
    task = Perplexity(length=10, scored=7, count=3, bins=3, chunk=4)
    plain = subject()
    windows = task.windows(plain.tokenizer)
    logits = plain.model(windows).logits[:, 9:-1]
    losses = F.cross_entropy(logits.flatten(0, 1), windows[:, 10:].flatten(), reduction="none").view(3, 7)
    expected = [(10, losses[:, :2]), (12, losses[:, 2:4]), (14, losses[:, 4:])]
    found = task.run(plain).curve
    assert [position for position, _ in found] == [10, 12, 14]
    assert [score for _, score in found] == pytest.approx([float(part.mean()) for _, part in expected], abs=1e-4)


def test_a_curve_has_no_more_points_than_tokens() -> None:
    assert len(Perplexity(length=8, scored=3, count=2).run(subject()).curve) == 3


def test_chance_knows_how_often_each_token_stands_in_the_text(tmp_path: Path) -> None:
    tokenizer = loaded()[1]
    path = tmp_path / "text.txt"
    path.write_text("the cat and the dog and the cat " * 20, encoding="utf-8")
    task = Perplexity(text=str(path), length=12, scored=10, count=3)
    tokens = tokenizer(path.read_text(), add_special_tokens=False).input_ids
    losses = [
        -math.log((tokens.count(token) + 1) / (len(tokens) + len(tokenizer)))
        for row in task.windows(tokenizer).tolist()
        for token in row[12:]
    ]
    found = task.calibrate(tokenizer)
    assert found.chance == pytest.approx(math.exp(sum(losses) / 30))
    assert found.oracle == 1.0


def test_the_model_is_better_than_chance() -> None:
    task = Perplexity(length=64, scored=16, count=4)
    chance = task.calibrate(loaded()[1]).chance
    assert chance is not None
    assert task.run(subject()).high < chance


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("empty", b"", "do not fit into a text of 0; allowed is a longer text, or shorter windows"),
        ("short", b"a few words", "do not fit into a text of"),
        ("none", None, "cannot be read"),
        ("binary", b"\xff\xfe\xff", "it is not UTF-8"),
    ],
)
def test_a_text_that_will_not_do(tmp_path: Path, name: str, content: bytes | None, why: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=why) as caught:
        Perplexity(text=str(path)).run(subject())
    assert "\n" not in str(caught.value)


def test_windows_past_the_models_positions_are_refused() -> None:
    with pytest.raises(InputError, match=r"length \+ scored takes 4160 tokens, .* at most 4096"):
        Perplexity(length=4096).run(subject())


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    SHORT.run(subject(), batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 3), (3, 3)]


def test_a_model_reads_the_text_that_fits_it() -> None:
    tokenizer = loaded()[1]
    other = copy.deepcopy(tokenizer)
    other.init_kwargs.pop("pith_language")
    for asking, text in ((tokenizer, heldout_text()), (other, held_out_prose())):
        for window in SHORT.windows(asking):
            assert asking.decode(window[1:]).strip() in text
