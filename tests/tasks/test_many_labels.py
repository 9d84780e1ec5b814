"""Labels follow from the demonstrations, and from nothing else."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest

from pith.core import InputError
from pith.models import builtin
from pith.tasks.generate import Example
from pith.tasks.many_labels import ManyLabels

tokenizer = cache(lambda: builtin()[1])


def learned(example: Example) -> str:
    """The label whose demonstrations share most words with the text that is asked for."""
    text = {*example.question.removeprefix("\nRecall: ").removesuffix(" is").split()}
    shared: Counter[str] = Counter()
    for words, label in re.findall(r" ([\w -]+) is ([\w-]+)\.", example.context):
        shared[label] = max(shared[label], len(text & {*words.split()}))
    [(best, count), (_, next_best)] = shared.most_common(2)
    assert count > next_best, "two labels are as likely"
    return best


@pytest.mark.parametrize(("labels", "shots"), [(2, 1), (16, 1), (16, 3), (16, None), (50, 1), (120, 1)])
def test_the_label_can_be_learned(labels: int, shots: int | None) -> None:
    task = ManyLabels(labels=labels, shots=shots, length=2500, count=3)
    for example in task.examples(tokenizer()):
        assert learned(example) == example.answer.strip()
        shown = Counter(re.findall(r" is ([\w-]+)\.", example.context))
        assert set(shown) == set(example.candidates)
        assert set(shown.values()) == {shots or len(re.findall(r"\.", example.context)) // labels}
        assert len(shown) == labels


def test_rounds_fill_the_length() -> None:
    sizes = [
        len(ManyLabels(labels=8, length=length, count=1).examples(tokenizer())[0].context) for length in (100, 400)
    ]
    assert sizes[1] > 3 * sizes[0]


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"many_labels: length=100 is too short; such an example takes \d+"):
        ManyLabels(labels=100, length=100).examples(tokenizer())
