"""A long list is written down again."""

from __future__ import annotations

from functools import cache

from pith.models import builtin
from pith.tasks.kick.generation import KickGeneration
from pith.tasks.scoring import score

tokenizer = cache(lambda: builtin()[1])


def test_the_answer_is_the_rest_of_one_of_the_lists() -> None:
    for example in KickGeneration(count=3, words=12).examples(tokenizer()):
        lists = [one.split() for one in example.context.removeprefix(" List: ").removesuffix(".").split(". List: ")]
        assert [len(one) for one in lists] == [12] * 4
        first = example.question.split()[-1]
        [asked] = [one for one in lists if one[0] == first]
        assert list(example.answers) == asked[1:]


def test_the_score_is_the_share_of_words_that_were_written() -> None:
    [example] = KickGeneration(count=1, words=11).examples(tokenizer())
    words = list(example.answers)
    assert score(example, " ".join(words[:5]), "all") == 0.5
    assert score(example, " ".join([words[0]] * 20), "all") == 0.1
    assert score(example, "", "all") == 0


def test_a_guesser_finds_a_quarter() -> None:
    known = KickGeneration(count=5).calibrate(tokenizer())
    assert known.oracle == 1
    assert abs((known.chance or 0) - 0.25) < 0.02
