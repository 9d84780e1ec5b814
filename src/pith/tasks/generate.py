"""Seeded generators of retrieval tasks in words; training of the built-in model and evaluation share them.

All tasks speak one small language: facts such as `` apple is 4821.``, and a question line
``\\nRecall: apple is`` whose answer is `` 4821``. Nothing but the given ``random.Random`` is a source
of chance, so equal seeds give equal examples.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from pith.tasks.words import KEY_WORDS

_SENTENCE_END = re.compile(r"(?<=[.:;!?])(?=\s)")


@dataclass(frozen=True)
class Example:
    """One task instance: a model reads ``context + question`` and should go on with ``answer``.

    ``answer`` begins with a space, so that its tokens do not merge with those of the question.
    """

    context: str
    question: str
    answer: str


def value(rng: Random) -> str:
    """Draw a four-digit number as text, the kind of value that facts hold."""
    return str(rng.randrange(1000, 10000))


def fact(key: str, content: str) -> str:
    """State that ``key`` is ``content``; the sentence begins with a space."""
    return f" {key} is {content}."


def recall(key: str) -> str:
    """Ask for the content of ``key``: one line that ends just before the answer."""
    return f"\nRecall: {key} is"


def lookup(rng: Random, pairs: int = 8) -> Example:
    """Key-value look-up: ``pairs`` facts one after another, one of them asked (1 <= pairs <= len(KEY_WORDS))."""
    keys = rng.sample(KEY_WORDS, pairs)
    values = [value(rng) for _ in keys]
    asked = rng.randrange(pairs)
    context = "".join(map(fact, keys, values))
    return Example(context, recall(keys[asked]), " " + values[asked])


def variable_tracking(rng: Random, chains: int = 2, hops: int = 2) -> Example:
    """Follow one of ``chains`` interleaved chains of ``hops`` assignments down to its number.

    `` apple is 4821. river is apple.`` and ``Recall: river is`` give `` apple is 4821``: the answer
    spells the whole chain. ``chains * hops`` words must not exceed ``len(KEY_WORDS)``.
    """
    words = rng.sample(KEY_WORDS, chains * hops)
    queues: list[list[str]] = []
    answers: list[tuple[str, str]] = []
    for chain in range(chains):
        names = words[chain * hops : (chain + 1) * hops]
        contents = [value(rng), *names[:-1]]
        queues.append(list(map(fact, names, contents)))
        answers.append((names[-1], " " + " is ".join(reversed(contents))))
    sentences: list[str] = []
    while queues:
        queue = rng.choice(queues)
        sentences.append(queue.pop(0))
        queues = [left for left in queues if left]
    key, answer = rng.choice(answers)
    return Example("".join(sentences), recall(key), answer)


def copying(rng: Random, count: int = 12) -> Example:
    """Repeat a list of ``count`` distinct words in order (1 <= count <= len(KEY_WORDS))."""
    words = " ".join(rng.sample(KEY_WORDS, count))
    return Example(f" List: {words}.", "\nRecall: List:", " " + words)


def needle(
    rng: Random,
    haystack: str,
    count_tokens: Callable[[str], int],
    length: int,
    depth: float,
    keys: int = 4,
) -> Example:
    """Hide ``keys`` facts in a random stretch of ``haystack`` and ask for one of them.

    Args:
        rng: source of chance.
        haystack: filler text; the stretch begins at a line and must be long enough for ``length``.
        count_tokens: number of tokens of a text, the beginning-of-sequence token included if there is one.
        length: most tokens that context, question and answer may have together; the example comes close.
        depth: where the asked fact stands: 0 at the beginning, 1 at the end of the filler.
        keys: number of facts; those not asked stand at random places.

    Raises:
        ValueError: for a depth outside [0, 1], or when facts and question alone exceed ``length``.
    """
    if not 0.0 <= depth <= 1.0:
        raise ValueError(f"depth is {depth}, but must lie between 0 and 1")
    # A word that the haystack itself puts before "is" would make the question ambiguous.
    usable = [word for word in KEY_WORDS if f" {word} is" not in haystack]
    names = rng.sample(usable, keys)
    values = [value(rng) for _ in names]
    places = [depth, *(rng.random() for _ in names[1:])]
    facts = list(map(fact, names, values))
    question, answer = recall(names[0]), " " + values[0]

    def build(size: int) -> str:
        return _insert(filler[:size], facts, places)

    def fits(size: int) -> bool:
        return count_tokens(build(size) + question + answer) <= length

    filler = _stretch(rng, haystack, length * 8)
    if not fits(0):
        raise ValueError(f"{keys} facts and a question do not fit into {length} tokens")
    low, high = 0, len(filler) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return Example(build(low), question, answer)


def _stretch(rng: Random, haystack: str, size: int) -> str:
    """Cut about ``size`` characters that begin at a random line of the haystack, wrapping round its end."""
    start = haystack.find("\n", rng.randrange(max(len(haystack), 1))) + 1
    doubled = haystack[start:] + haystack[:start]
    return doubled[:size]


def _insert(filler: str, facts: Sequence[str], places: Sequence[float]) -> str:
    """Put each fact behind the sentence that ends nearest to its relative place."""
    size = len(filler)
    ends = [0, *(match.start() for match in _SENTENCE_END.finditer(filler)), size]
    at = [min((abs(end - place * size), end) for end in ends)[1] for place in places]
    pieces: list[str] = []
    done = 0
    for position, sentence in sorted(zip(at, facts, strict=True)):
        pieces += [filler[done:position], sentence]
        done = position
    return "".join([*pieces, filler[done:]])
