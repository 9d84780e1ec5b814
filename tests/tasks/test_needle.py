"""Needle questions are the same for everybody, and an answer counts where it is exact."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig

from pith.core import InputError, ParameterError, Recipe
from pith.models import Subject, builtin
from pith.tasks import Needle

SMALL = Needle(length=160, count=5)


class Oracle:
    """Stands in for a model: it reads the last `sight` characters of a prompt as a person would."""

    def __init__(self, tokenizer: Any, sight: int) -> None:
        self.tokenizer, self.sight = tokenizer, sight
        self.config, self.device = LlamaConfig(max_position_embeddings=4096), torch.device("cpu")
        self.rows: list[int] = []

    def generate(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: GenerationConfig, **_: Any
    ) -> torch.Tensor:
        assert attention_mask[:, -1].all(), "padding stands on the left"
        assert not generation_config.do_sample
        self.rows.append(len(input_ids))
        answers = []
        for ids, real in zip(input_ids, attention_mask.bool(), strict=True):
            text = self.tokenizer.decode(ids[real], skip_special_tokens=True)
            context, _, key = text.removesuffix(" is").rpartition("\nRecall: ")
            found = re.search(rf" {key} is (\d+)\.", context[-self.sight :])
            answer = self.tokenizer(f" {found[1] if found else 1234}", add_special_tokens=False).input_ids
            answers.append(torch.tensor(answer[: generation_config.max_new_tokens]))
        return torch.cat([input_ids, torch.stack(answers)], dim=1)


loaded = cache(builtin)


def oracle(sight: int = 10**6) -> Subject:
    tokenizer = loaded()[1]
    return Subject(Oracle(tokenizer, sight), tokenizer)


def test_who_reads_everything_finds_everything() -> None:
    told: list[tuple[int, int]] = []
    found = SMALL.run(oracle(), batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert (found.value, found.n, found.scores) == (1.0, 5, (1.0,) * 5)
    assert (found.low, found.high) == (pytest.approx(0.5655, abs=1e-4), 1.0)
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_depth_is_where_the_fact_stands() -> None:
    forgetful = oracle(sight=300)
    assert Needle(length=400, count=4, depth=0.0).run(forgetful).value == 0.0
    assert Needle(length=400, count=4, depth=1.0).run(forgetful).value == 1.0
    scores = Needle(length=400, count=12).run(forgetful).scores
    assert 0 < sum(scores) < 12, "anywhere is neither always early nor always late"


def test_an_example_depends_on_the_seed_and_its_index_only() -> None:
    tokenizer = loaded()[1]
    assert Needle(length=160, count=2).examples(tokenizer) == SMALL.examples(tokenizer)[:2]
    assert Needle(length=160, count=2, seed=1).examples(tokenizer) != SMALL.examples(tokenizer)[:2]
    assert len(set(SMALL.examples(tokenizer))) == 5


def test_examples_fill_the_length() -> None:
    tokenizer = loaded()[1]
    for example in SMALL.examples(tokenizer):
        assert 150 <= len(tokenizer(example.context + example.question + example.answer).input_ids) <= 160
        assert len(re.findall(r" \w+ is \d{4}\.", example.context)) == 4


@pytest.mark.parametrize("recipe", [None, "snapkv(budget=0.5, window=8)", "streaming_llm(budget=0.5)"])
def test_the_score_does_not_depend_on_the_batch_size(recipe: str | None) -> None:
    model, tokenizer = loaded()
    subject = Subject(model, tokenizer, None if recipe is None else Recipe.parse(recipe))
    assert SMALL.run(subject, batch_size=5).scores == SMALL.run(subject, batch_size=1).scores


def test_a_checkpoints_own_sampling_is_not_used() -> None:
    model, tokenizer = builtin()
    plain = SMALL.run(Subject(model, tokenizer)).scores
    model.generation_config.update(do_sample=True, temperature=50.0, repetition_penalty=5.0)
    assert SMALL.run(Subject(model, tokenizer)).scores == plain


def test_a_tokenizer_that_pads_on_the_right_changes_nothing() -> None:
    model, tokenizer = builtin()
    tokenizer.padding_side = "right"
    assert SMALL.run(Subject(Oracle(tokenizer, sight=10**6), tokenizer)).value == 1.0
    assert SMALL.run(Subject(model, tokenizer)).scores == SMALL.run(Subject(*loaded())).scores


def test_lengths_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="needle: length=20 is too short: 4 facts and a question do not fit"):
        Needle(length=20).run(oracle())
    with pytest.raises(InputError, match=r"needle: length=5000 takes 5000 tokens, .* at most 4096"):
        Needle(length=5000).run(oracle())


def test_a_length_that_the_reference_does_not_fill_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pith.tasks.room.heldout_text", lambda: "A line. And another.\n" * 20)
    with pytest.raises(InputError, match="needle: length=4000 is not filled; allowed is at most"):
        Needle(length=4000, count=1).run(oracle())


@pytest.mark.parametrize("values", [{"depth": 1.5}, {"keys": 0}, {"count": 0}, {"keys": 101}, {"length": 0}])
def test_parameters_are_checked(values: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=f"needle: {next(iter(values))}=.* is not allowed; allowed is"):
        Needle(**values)
