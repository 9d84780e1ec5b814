"""Generated questions in plain English: facts as sentences, a real question, and the beginning of its answer.

These are the questions that `language="english"` gives, the default for every model but the built-in one. Each function
gives the example that the one of that name in `pith.tasks.generate` gives in the small language of that model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random

from pith.tasks import generate
from pith.tasks.generate import Example

STATED = "number of the {} is"
"""How a text would state what facts state, whatever comes before it."""

SHOWN = ("lamp-post", "door-bell", "tea-pot", "rain-coat", "foot-path", "book-shelf")
"""Names of worked examples; no name that `names` draws is among them."""


def fact(key: str, content: str) -> str:
    """State the secret number of ``key``; the sentence begins with a space."""
    return f" The secret number of the {key} is {content}."


def asked(key: str, content: str, values: Sequence[str], depth: float) -> Example:
    """Ask for the secret number of ``key``, which is ``content``; a guesser names one of the values."""
    subject = f"the secret number of the {key}"
    return Example(
        "", f"\n\nWhat is {subject}?", f" {content}", candidates=tuple(values), depth=depth,
        start=f"{subject[0].upper()}{subject[1:]} is",
    )  # fmt: skip


def lookup(rng: Random, pairs: int = 8) -> Example:
    """Key-value look-up: ``pairs`` facts one after another, one of them asked.

    Where all sentences are alike, a small model finds a value only if it stands near its key.
    """
    keys = generate.names(rng, pairs)
    values = [generate.value(rng) for _ in keys]
    chosen = rng.randrange(pairs)
    return Example(
        context=" ".join(f"The {key} is number {one}." for key, one in zip(keys, values, strict=True)),
        question=f"\n\nWhich number is the {keys[chosen]}?",
        answer=f" {values[chosen]}",
        candidates=tuple(values),
        depth=chosen / max(pairs - 1, 1),
        start=f"The {keys[chosen]} is number",
    )


def passkey(number: str, depth: float) -> tuple[Example, str]:
    """Ask for the pass key; the example with what stands before the text, and the sentence that states the key."""
    hidden = (
        "There is a pass key hidden in the text below. Find it and remember it, because a question about it follows."
    )
    example = Example(f"{hidden}\n", "\n\nWhat is the pass key?", f" {number}", depth=depth, start="The pass key is")
    return example, f" The pass key is {number}. Remember it. {number} is the pass key."


def variable_tracking(rng: Random, chains: int = 2, hops: int = 2) -> Example:
    """Follow one of ``chains`` interleaved chains of ``hops`` assignments down to its number.

    `` The apple has the number 4821. The river has the same number as the apple.`` and the question for the river give
    `` the apple. The apple has the number 4821``: the answer repeats the facts of the whole chain. A worked example
    stands before them.
    """
    sentences, steps = generate.assignments(rng, chains, hops, _holds)
    shown = [*SHOWN[: min(hops, len(SHOWN))][::-1], "7305"]
    worked = _sentences(shown) + _question(shown[0]) + f"\nAnswer: {_start(shown)}{_spelled(shown)}."
    spelled = list(map(_spelled, steps))
    chosen = rng.randrange(chains)
    return Example(
        context=f"{worked.strip()}\n\n{''.join(sentences).strip()}",
        question=f"\n{_question(steps[chosen][0]).strip()}",
        answer=spelled[chosen],
        answers=(steps[chosen][-1],),
        candidates=tuple(one.strip() for one in spelled),
        start=_start(steps[chosen]),
    )


def _holds(key: str, content: str) -> str:
    held = f"number {content}" if content.isdecimal() else f"same number as the {content}"
    return f" The {key} has the {held}."


def _sentences(chain: Sequence[str]) -> str:
    """State a chain from its number up, the other way round than it is spelled."""
    return "".join(_holds(key, content) for key, content in reversed([*pairwise(chain)]))


def _question(key: str) -> str:
    return f"\nWhich number does the {key} have? Name each step."


def _start(chain: Sequence[str]) -> str:
    return _holds(chain[0], chain[1]).strip().removesuffix(f" {chain[1]}.").removesuffix(" the")


def _spelled(chain: Sequence[str]) -> str:
    """Spell a chain from its second name down: `` the apple. The apple has the number 4821``."""
    facts = "".join(map(_holds, chain, chain[1:]))
    return facts.removeprefix(f" {_start(chain)}").removesuffix(".")


def copying(lists: Sequence[Sequence[str]], chosen: int) -> Example:
    """Repeat one of several lists of words, given its first word."""
    rests = [", ".join(one[1:]) for one in lists]
    first = lists[chosen][0]
    return Example(
        context=" ".join(f"One list reads: {', '.join(one)}." for one in lists),
        question=f"\n\nHow does the list that begins with {first} read?",
        answer=f" {rests[chosen]}",
        candidates=tuple(rests),
        depth=chosen / max(len(lists) - 1, 1),
        start=f"One list reads: {first},",
    )


def labels(shown: Sequence[tuple[str, str]], text: str, label: str, every: Sequence[str]) -> Example:
    """Give a text the label that demonstrations teach."""
    context = "\n".join(f"Text: {one}. Label: {name}." for one, name in shown)
    question = f"\n\nWhich label does the text {text} have, going by those above?"
    return Example(context, question, f" {label}", candidates=tuple(every), start=f"Text: {text}. Label:")
