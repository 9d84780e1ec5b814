"""Facts follow from Python's library, and replies are judged by how they begin."""

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

FACT = Fact("\n\n    def __lt__(self,", " other")


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


def test_the_library_nearly_always_goes_on_in_that_way() -> None:
    lines = [
        (path, line.strip())
        for path in Path(sysconfig.get_paths()["stdlib"]).glob("*.py")
        for line in path.read_text(encoding="utf-8", errors="ignore").split("\n")
        if not line.strip().startswith("#")
    ]
    for fact in facts()[::10]:
        beginning = fact.question.strip()
        there = [(path, line.removeprefix(beginning)) for path, line in lines if line.startswith(beginning)]
        words = [(path, rest) for path, rest in there if re.match(r"\s*(?!\d)\w{3}", rest)]
        right = [path for path, rest in words if score(rest, fact)]
        assert len(right) >= mined.SEEN
        assert len({*right}) >= mined.FILES
        assert len(right) >= mined.SHARE * len(words)


def test_facts_differ_and_few_have_one_answer() -> None:
    assert len(facts()) >= 80
    assert len({fact.question for fact in facts()}) == len(facts())
    assert max(Counter(fact.answer.strip() for fact in facts()).values()) <= mined.ALIKE


def test_more_questions_do_not_change_the_first() -> None:
    assert drawn("kick_factoid", 20, 3)[:5] == drawn("kick_factoid", 5, 3)
    assert drawn("kick_factoid", 20, 3) != drawn("kick_factoid", 20, 4)


def test_too_many_questions_are_refused() -> None:
    with pytest.raises(InputError, match=r"kick_factoid: count=9999 is not allowed; .* gives at most \d+$"):
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
