"""The generated tasks are exact, deterministic and as long and deep as asked."""

import hashlib
from itertools import pairwise
from random import Random

import pytest

from pith.tasks import generate
from pith.tasks.heldout import heldout_text
from pith.tasks.words import KEY_WORDS

HAYSTACK = "\n".join(f"Line {number} says nothing. It goes on, and stops here." for number in range(400))


def count(text: str) -> int:
    """Stand-in tokenizer: four characters a token, and one token at the beginning."""
    return 1 + len(text) // 4


def draw(seed: int, length: int = 512, depth: float = 0.5, keys: int = 4) -> generate.Example:
    """Draw a needle example from the small haystack."""
    return generate.needle(Random(seed), HAYSTACK, count, length, depth, keys)


def test_key_words_are_distinct() -> None:
    """No key word occurs twice or in the middle of another's fact."""
    assert len(set(KEY_WORDS)) == len(KEY_WORDS) > 200
    assert all(word.isalpha() and word.islower() for word in KEY_WORDS)


@pytest.mark.parametrize("length", [128, 512, 2048])
def test_needle_fills_its_length(length: int) -> None:
    """Examples never exceed the asked length, and come within a few tokens of it."""
    for seed in range(5):
        example = draw(seed, length)
        size = count(example.context + example.question + example.answer)
        assert length - 4 <= size <= length


@pytest.mark.parametrize("depth", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_needle_stands_at_its_depth(depth: float) -> None:
    """The asked fact lies at its relative depth, up to the length of a sentence and the other facts."""
    for seed in range(5):
        example = draw(seed, 1024, depth)
        key = example.question.split()[-2]
        place = example.context.index(generate.fact(key, example.answer.strip()))
        assert place / len(example.context) == pytest.approx(depth, abs=0.04)


@pytest.mark.parametrize("keys", [1, 2, 8])
def test_needle_states_each_key_once(keys: int) -> None:
    """There are as many facts as keys, and the asked one has the answer."""
    example = draw(3, keys=keys)
    stated = [word for word in KEY_WORDS if f" {word} is " in example.context]
    key = example.question.split()[-2]
    assert len(stated) == keys
    assert key in stated
    assert example.context.count(generate.fact(key, example.answer.strip())) == 1


def test_needle_refuses_what_cannot_be() -> None:
    """Depths outside the text and lengths below the facts raise."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        draw(0, depth=1.5)
    with pytest.raises(ValueError, match="do not fit"):
        draw(0, length=20)


def test_needle_avoids_words_of_the_haystack() -> None:
    """A word that the haystack itself defines is never asked."""
    text = "".join(f"Here {word} is something.\n" for word in KEY_WORDS[:-3]) * 2
    for seed in range(10):
        example = generate.needle(Random(seed), text, count, 256, 0.5, 3)
        assert example.question.split()[-2] in KEY_WORDS[-3:]


def test_equal_seeds_give_equal_examples() -> None:
    """The random generator handed over is the only source of chance."""
    for make in (generate.lookup, generate.variable_tracking, generate.copying):
        assert make(Random(5)) == make(Random(5)) != make(Random(6))
    assert draw(5) == draw(5) != draw(6)


def test_examples_are_those_of_the_first_release() -> None:
    """The built-in model was trained on them, and needle's scores of all versions are of the same questions."""
    texts: list[str] = []
    for seed in range(20):
        drawn = (
            generate.lookup(Random(seed)),
            generate.variable_tracking(Random(seed), 4, 3),
            generate.copying(Random(seed)),
            draw(seed),
        )
        texts += [text for e in drawn for text in (e.context, e.question, e.answer)]
    assert hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16] == "4f2990bc1a000afc"


def test_names_are_words_and_then_pairs_of_them() -> None:
    """Beyond the words come pairs, and nothing comes twice."""
    assert {*generate.names(Random(0), len(KEY_WORDS))} == {*KEY_WORDS}
    more = generate.names(Random(0), 1000)
    assert len({*more}) == 1000
    assert {name for name in more if "-" not in name} == {*KEY_WORDS}
    assert all({*name.split("-")} <= {*KEY_WORDS} for name in more)
    assert KEY_WORDS[0] not in generate.names(Random(0), 300, apart_from=f"Here {KEY_WORDS[0]} is something.")
    with pytest.raises(ValueError, match="names were asked for"):
        generate.names(Random(0), 10**6)


def test_lookup_answer_is_in_the_context_once() -> None:
    """Each look-up lists its pairs, and the asked key has one value."""
    example = generate.lookup(Random(1), 16)
    key = example.question.split()[-2]
    assert example.context.count(" is ") == 16
    assert example.context.count(f" {key} is{example.answer}.") == 1


@pytest.mark.parametrize(("chains", "hops"), [(1, 1), (2, 3), (4, 4)])
def test_variable_tracking_answer_follows_the_chain(chains: int, hops: int) -> None:
    """Every step of the answer is a fact of the context, down to a number."""
    example = generate.variable_tracking(Random(2), chains, hops)
    steps = [example.question.split()[-2], *example.answer.strip().split(" is ")]
    assert len(steps) == hops + 1
    assert steps[-1].isdigit()
    for key, content in pairwise(steps):
        assert example.context.count(generate.fact(key, content)) == 1


def test_copying_repeats_the_list() -> None:
    """The answer is the whole list, word for word."""
    example = generate.copying(Random(3), 20)
    assert example.context == f" List:{example.answer}."
    assert len(set(example.answer.split())) == 20


def test_heldout_text_is_the_topics() -> None:
    """The held-out text is long, the same every time, and holds the language reference."""
    text = heldout_text()
    assert text == heldout_text()
    assert len(text) > 200_000
    assert 'The "assert" statement' in text
