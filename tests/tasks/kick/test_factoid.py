"""Facts are of the world or of Python's library, and replies are judged by what they begin with or hold."""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from pith.core import InputError
from pith.models import Subject, builtin
from pith.tasks.kick import facts as mined
from pith.tasks.kick.factoid import KickFactoid, score
from pith.tasks.kick.facts import Fact, drawn, facts
from pretrained import smollm2

FACT = Fact("\n\n    def __lt__(self,", " other")
ASKED = Fact("Question: Who wrote Hamlet?\nAnswer:", " Shakespeare", "Who wrote {}?")


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        (" other", True), (" other):\n", True), ("other", True),
        ("", False), (" ", False), (" others", False), (" the other", False), (" Other", False), (" o", False),
    ],
)  # fmt: skip
def test_a_reply_is_right_where_it_begins_with_the_word(reply: str, right: bool) -> None:
    """LLM-KICK's own score takes an empty reply, and one that is part of the answer, for right."""
    assert score(reply, FACT) == right


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        (" Shakespeare", True), ("William SHAKESPEARE wrote it", True), ("\nShakespeare.", True),
        ("", False), (" Shakespeares", False), (" Marlowe\nShakespeare", False), ("Neoshakespeare", False),
    ],
)  # fmt: skip
def test_a_reply_to_a_question_is_right_where_its_first_line_holds_the_answer(reply: str, right: bool) -> None:
    assert score(reply, ASKED) == right


def test_questions_about_the_world_differ_and_have_one_answer_each() -> None:
    every = facts("english")
    assert len(every) >= 140
    assert len({fact.question for fact in every}) == len(every)
    assert all(fact.answer.strip() and "{" not in fact.question and fact.answer[0] == " " for fact in every)
    assert min(Counter(fact.kind for fact in every).values()) >= 20  # enough for 20 choices
    assert all(score(other.answer, fact) == (other.answer == fact.answer) for fact in every for other in every)


def test_the_language_of_the_model_decides_what_is_asked() -> None:
    _, tokenizer = builtin()
    same = KickFactoid(count=9, language="pith").calibrate(None)
    assert KickFactoid(count=9).calibrate(tokenizer) == same
    assert KickFactoid(count=9).calibrate(None) == KickFactoid(count=9, language="english").calibrate(tokenizer) != same


def test_a_pretrained_model_knows_far_more_than_a_guesser() -> None:
    loaded = smollm2()
    task = KickFactoid(count=24)
    chance = task.calibrate(loaded.tokenizer).chance or 0
    assert task.run(Subject(loaded.model, loaded.tokenizer)).low > 3 * chance


def test_the_library_nearly_always_goes_on_in_that_way() -> None:
    lines = [
        (path, line.strip())
        for path in Path(sysconfig.get_paths()["stdlib"]).glob("*.py")
        for line in path.read_text(encoding="utf-8", errors="ignore").split("\n")
        if not line.strip().startswith("#")
    ]
    for fact in facts("pith")[::10]:
        beginning = fact.question.strip()
        there = [(path, line.removeprefix(beginning)) for path, line in lines if line.startswith(beginning)]
        words = [(path, rest) for path, rest in there if re.match(r"\s*(?!\d)\w{3}", rest)]
        right = [path for path, rest in words if score(rest, fact)]
        assert len(right) >= mined.SEEN
        assert len({*right}) >= mined.FILES
        assert len(right) >= mined.SHARE * len(words)


def test_facts_differ_and_few_have_one_answer() -> None:
    every = facts("pith")
    assert len(every) >= 80
    assert len({fact.question for fact in every}) == len(every)
    assert max(Counter(fact.answer.strip() for fact in every).values()) <= mined.ALIKE


def test_more_questions_do_not_change_the_first() -> None:
    assert drawn("kick_factoid", "pith", 20, 3)[:5] == drawn("kick_factoid", "pith", 5, 3)
    assert drawn("kick_factoid", "pith", 20, 3) != drawn("kick_factoid", "pith", 20, 4)


def test_too_many_questions_are_refused() -> None:
    with pytest.raises(InputError, match=r"kick_factoid: count=9999 is not allowed; there are \d+ questions here$"):
        KickFactoid(count=9999).calibrate(None)


def test_the_builtin_model_knows_far_more_than_a_guesser() -> None:
    model, tokenizer = builtin()
    task = KickFactoid(count=60)
    known = task.calibrate(tokenizer)
    assert known.oracle == 1
    assert 0 < (known.chance or 0) < 0.05
    found = task.run(Subject(model, tokenizer), batch_size=32)
    assert found.low > 3 * known.chance
    assert found.value == sum(found.scores) / 60
    alone = task.run(Subject(model, tokenizer), batch_size=7)
    assert alone.scores == found.scores
