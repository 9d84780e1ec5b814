"""The likeliest of several answers is chosen."""

from __future__ import annotations

import pytest
import torch

from pith.models import Subject, builtin
from pith.tasks.kick.choice import KickChoice
from pith.tasks.kick.facts import drawn, facts


def test_each_question_comes_with_its_answer_first_and_others() -> None:
    _, tokenizer = builtin()
    task = KickChoice(count=8, choices=3)
    pairs = task.pairs(tokenizer)
    assert len(pairs) == 24
    for index, fact in enumerate(drawn("kick_choice", "pith", 8, 0)):
        texts = [
            tokenizer.decode(context + answer, skip_special_tokens=True) for context, answer in pairs[3 * index :][:3]
        ]
        assert texts[0] == fact.question + fact.answer
        assert len({*texts}) == 3
        assert all(text.startswith(fact.question) for text in texts)


@torch.no_grad()
def test_the_choice_is_that_of_plain_forwards() -> None:
    model, tokenizer = builtin()
    task = KickChoice(count=12)
    found = task.run(Subject(model, tokenizer), batch_size=16)
    likely = []
    for context, answer in task.pairs(tokenizer):
        logits = model(torch.tensor([context + answer])).logits[0, len(context) - 1 : -1]
        likely.append(float(logits.log_softmax(-1)[range(len(answer)), answer].mean()))
    expected = [float(max(range(4), key=lambda k: likely[4 * i + k]) == 0) for i in range(12)]
    assert list(found.scores) == expected
    assert found.value > 0.5


def test_questions_about_the_world_have_wrong_answers_of_the_same_form() -> None:
    _, tokenizer = builtin()
    task = KickChoice(count=30, choices=4, language="english")
    read = [tokenizer.decode(context + answer, skip_special_tokens=True) for context, answer in task.pairs(tokenizer)]
    for index, fact in enumerate(drawn("kick_choice", "english", 30, 0)):
        texts = read[4 * index :][:4]
        alike = {fact.question + other.answer for other in facts("english") if other.kind == fact.kind}
        assert len({*texts}) == 4
        assert {*texts} <= alike


def test_a_guesser_takes_any() -> None:
    assert KickChoice(choices=5).calibrate(None).chance == pytest.approx(0.2)
