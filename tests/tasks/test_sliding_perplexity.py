"""Perplexity of a whole text is that of a plain loop over windows in Transformers."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from pith.core import InputError, PithWarning, Recipe
from pith.models import Subject, builtin
from pith.tasks.sliding_perplexity import SlidingPerplexity

loaded = cache(builtin)


def subject(recipe: str | None = None) -> Subject:
    model, tokenizer = loaded()
    return Subject(model, tokenizer, None if recipe is None else Recipe.parse(recipe))


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"The {n}th line of the text says {n * n}." for n in range(8)), encoding="utf-8")
    return str(path)


@torch.no_grad()
def plain_loop(path: str, length: int, stride: int, count: int | None = None) -> float:
    """The usual loop: a window every `stride` tokens, whose tokens that were seen before are no labels."""
    model, tokenizer = loaded()
    ids = tokenizer(Path(path).read_text(encoding="utf-8"), return_tensors="pt").input_ids
    total, tokens, previous = 0.0, 0, 0
    for number, begin in enumerate(range(0, ids.shape[1], stride)):
        end = min(begin + length, ids.shape[1])
        part = ids[:, begin:end]
        labels = part.clone()
        labels[:, : previous - begin] = -100
        scored = int((labels[:, 1:] != -100).sum())
        if scored:
            total += float(model(input_ids=part, labels=labels).loss) * scored
            tokens += scored
        previous = end
        if end == ids.shape[1] or number + 1 == count:
            break
    return math.exp(total / tokens)


@pytest.mark.parametrize(
    ("length", "stride"), [(32, None), (32, 8), (32, 31), (33, 32), (32, 1), (4096, None), (2, None)]
)
def test_the_perplexity_of_a_plain_loop(text: str, length: int, stride: int | None) -> None:
    task = SlidingPerplexity(text=text, length=length, stride=stride)
    found = task.run(subject())
    assert found.value == pytest.approx(plain_loop(text, length, stride or length), rel=2e-6)
    assert found.low < found.value < found.high
    assert math.log(found.value) == pytest.approx(sum(found.scores) / found.n)
    assert found.n == len(found.scores) >= 8


@pytest.mark.parametrize("stride", [None, 8])
def test_a_count_reads_the_first_windows(text: str, stride: int | None) -> None:
    task = SlidingPerplexity(text=text, length=32, stride=stride, count=3)
    assert task.run(subject()).value == pytest.approx(plain_loop(text, 32, stride or 32, 3), rel=2e-6)


@pytest.mark.parametrize("stride", [None, 8])
@pytest.mark.parametrize("chunk", [1, 5])
def test_neither_chunks_nor_batches_change_the_dense_score(text: str, chunk: int, stride: int | None) -> None:
    task = SlidingPerplexity(text=text, length=32, stride=stride, count=4)
    expected = task.run(subject()).scores
    assert replace(task, chunk=chunk).run(subject(), batch_size=1).scores == pytest.approx(expected, abs=1e-5)


def test_methods_act_on_the_overlap_only(text: str) -> None:
    recipe = "streaming_llm(budget=8)"
    for stride, changes in ((None, False), (16, True)):
        task = SlidingPerplexity(text=text, length=32, stride=stride)
        dense = task.run(subject()).scores
        assert (task.run(subject(recipe)).scores != pytest.approx(dense, abs=1e-3)) == changes
        assert task.run(subject("streaming_llm(budget=1.0)")).scores == pytest.approx(dense, abs=1e-5)


def test_a_guesser_is_worse_and_a_whole_text_says_what_it_costs(text: str) -> None:
    task = SlidingPerplexity(text=text, length=32)
    with pytest.warns(PithWarning, match=r"reads the whole text for each recipe: \d+ tokens in \d+ windows") as caught:
        found = task.calibrate(loaded()[1])
    assert found.chance is not None
    assert found.chance > 2 * found.oracle == 2.0
    assert len(str(caught[0].message)) < 300


def test_a_guesser_knows_how_often_each_token_stands_in_the_text(text: str) -> None:
    tokenizer = loaded()[1]
    tokens = tokenizer(Path(text).read_text(encoding="utf-8"), add_special_tokens=False).input_ids
    likely = [math.log((tokens.count(one) + 1) / (len(tokens) + len(tokenizer))) for one in tokens[:31]]
    found = SlidingPerplexity(text=text, length=32, count=1).calibrate(tokenizer)
    assert found.chance == pytest.approx(math.exp(-sum(likely) / 31))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"stride": 40}, "sliding_perplexity: stride=40 leaves out tokens; allowed are at most length=32"),
        ({"length": 5000}, "sliding_perplexity: length=5000 takes 5000 tokens, .* at most 4096"),
        ({"text": "/dev/null/none"}, "cannot be read"),
    ],
)
def test_what_cannot_be_measured_is_refused(text: str, values: dict[str, int], why: str) -> None:
    with pytest.raises(InputError, match=why):
        SlidingPerplexity(**{"text": text, "length": 32} | values).run(subject())  # type: ignore[arg-type]


def test_a_text_without_two_tokens_to_score_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(InputError, match="a text of 1 tokens is too short; allowed are 3 or more"):
        SlidingPerplexity(text=str(tmp_path / "empty.txt"), length=32).run(subject())
