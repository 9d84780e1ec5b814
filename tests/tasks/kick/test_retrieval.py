"""The fact stands in the text, or nowhere."""

from __future__ import annotations

from functools import cache

from pith.models import Subject, builtin
from pith.tasks.kick.retrieval import KickRetrieval

tokenizer = cache(lambda: builtin()[1])


def test_the_fact_stands_in_the_book() -> None:
    task = KickRetrieval(count=3)
    for example in task.examples(tokenizer()):
        key = example.question.removeprefix("\nRecall: ").removesuffix(" is")
        assert f" {key} is{example.answer}." in example.context
        assert 0.9 * 768 < len(tokenizer()(example.context).input_ids) < 768


def test_without_the_book_the_questions_are_the_same_and_nobody_can_answer() -> None:
    open_book, closed = KickRetrieval(count=5, length=256), KickRetrieval(count=5, length=256, book=False)
    pairs = zip(open_book.examples(tokenizer()), closed.examples(tokenizer()), strict=True)
    assert all((a.question, a.answer, b.context) == (b.question, b.answer, "") for a, b in pairs)
    assert closed.calibrate(tokenizer()).chance == 0
    model, _ = builtin()
    assert open_book.run(Subject(model, tokenizer())).value == 1
    assert closed.run(Subject(model, tokenizer())).value == 0
