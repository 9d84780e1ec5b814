"""Seeded generators of retrieval tasks in words; training of the built-in model and evaluation share them.

The tasks have two wordings. This module holds the language of the built-in model, `language="pith"`: facts such
as `` apple is 4821.``, and a question line ``\\nRecall: apple is`` whose answer is `` 4821``. `pith.tasks.english` has
the plain English that every other model reads. Nothing but the given ``random.Random`` is a source of chance, so equal
seeds give equal examples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from pith.tasks.filler import insert, largest, stretch
from pith.tasks.words import KEY_WORDS


@dataclass(frozen=True)
class Example:
    """One task instance: a model reads ``context + question + lead`` and should continue with ``answer``.

    Attributes:
        context, question: what is read.
        answer: what one who knows would write. It begins with a space, so that its tokens do not merge with those of
            the question.
        answers: the parts of it that are looked for; empty where it counts as a whole.
        candidates: what one who knows the form of such an answer could name for each part; empty where nothing in the
            example narrows it down.
        depth: where the answer stands in the context, 0 the beginning and 1 the end, where it stands at one place.
        start: the beginning of the answer, which the model reads behind the question; empty where the answer has none,
            and None where the question itself ends as the answer begins.
    """

    context: str
    question: str
    answer: str
    answers: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    depth: float | None = None
    start: str | None = None

    @property
    def lead(self) -> str:
        """The text between question and answer in a plain prompt; in a chat the template takes its place."""
        return "" if self.start is None else f"\nAnswer: {self.start}".rstrip()

    @property
    def parts(self) -> tuple[str, ...]:
        """What is looked for in a reply."""
        return self.answers or (self.answer.strip(),)


def value(rng: Random, digits: int = 4) -> str:
    """Draw a number of ``digits`` digits as text, the kind of value that facts hold."""
    return str(rng.randrange(10 ** (digits - 1), 10**digits))


def names(rng: Random, count: int, apart_from: str = "", stated: str = " {} is") -> list[str]:
    """Draw ``count`` distinct names: key words, and pairs such as ``apple-river`` beyond the number of those.

    Args:
        rng: source of chance.
        count: how many.
        apart_from: a text around them; a word of which it states something would make questions ambiguous, and is not
            drawn.
        stated: how the text would do so; the word takes the place of the braces.

    Raises:
        ValueError: there are not so many.
    """
    words = [word for word in KEY_WORDS if not apart_from or stated.format(word) not in apart_from]
    if count <= len(words):
        return rng.sample(words, count)
    size, more = len(words), count - len(words)
    if more > size**2:
        raise ValueError(f"{count} names were asked for, but there are {size + size**2}")
    drawn = [*words, *(f"{words[pair // size]}-{words[pair % size]}" for pair in rng.sample(range(size**2), more))]
    rng.shuffle(drawn)
    return drawn


def fact(key: str, content: str) -> str:
    """State that ``key`` is ``content``; the sentence begins with a space."""
    return f" {key} is {content}."


def recall(key: str) -> str:
    """Ask for the content of ``key``: one line that ends just before the answer."""
    return f"\nRecall: {key} is"


def lookup(rng: Random, pairs: int = 8) -> Example:
    """Key-value look-up: ``pairs`` facts one after another, one of them asked."""
    keys = names(rng, pairs)
    values = [value(rng) for _ in keys]
    asked = rng.randrange(pairs)
    context = "".join(map(fact, keys, values))
    depth = asked / max(pairs - 1, 1)
    return Example(context, recall(keys[asked]), " " + values[asked], candidates=tuple(values), depth=depth)


def variable_tracking(rng: Random, chains: int = 2, hops: int = 2) -> Example:
    """Follow one of ``chains`` interleaved chains of ``hops`` assignments down to its number.

    `` apple is 4821. river is apple.`` and ``Recall: river is`` give `` apple is 4821``: the answer
    spells the whole chain.
    """
    return chained(*assignments(rng, chains, hops), rng)


def assignments(
    rng: Random, chains: int, hops: int, state: Callable[[str, str], str] = fact
) -> tuple[list[str], list[list[str]]]:
    """The facts of ``chains`` chains of ``hops`` assignments, interleaved, and each chain from its last name down.

    ``state`` writes a fact as a sentence.
    """
    words = names(rng, chains * hops)
    queues: list[list[str]] = []
    steps: list[list[str]] = []
    for chain in range(chains):
        own = words[chain * hops : (chain + 1) * hops]
        contents = [value(rng), *own[:-1]]
        queues.append(list(map(state, own, contents)))
        steps.append([own[-1], *reversed(contents)])
    sentences: list[str] = []
    while queues:
        queue = rng.choice(queues)
        sentences.append(queue.pop(0))
        queues = [left for left in queues if left]
    return sentences, steps


def chained(sentences: Sequence[str], steps: Sequence[Sequence[str]], rng: Random) -> Example:
    """Ask for one of the chains; a guesser names any of them as a whole."""
    spelled = [" is ".join(chain[1:]) for chain in steps]
    asked = rng.randrange(len(steps))
    return Example("".join(sentences), recall(steps[asked][0]), " " + spelled[asked], candidates=tuple(spelled))


def copying(rng: Random, count: int = 12) -> Example:
    """Repeat a list of ``count`` distinct words in order."""
    words = " ".join(names(rng, count))
    return Example(f" List: {words}.", "\nRecall: List:", " " + words)


def needle(
    rng: Random,
    haystack: str,
    count_tokens: Callable[[str], int],
    length: int,
    depth: float,
    keys: int = 4,
    cut: Callable[[Random, str, int], str] = stretch,
) -> Example:
    """Hide ``keys`` facts in a random stretch of ``haystack`` and ask for one of them.

    Args:
        rng: source of chance.
        haystack: filler text; the stretch begins at a line and must be long enough for ``length``.
        count_tokens: number of tokens of a text, the beginning-of-sequence token included if there is one.
        length: most tokens that context, question and answer may have together; the example comes close.
        depth: where the asked fact stands: 0 at the beginning, 1 at the end of the filler.
        keys: number of facts; those not asked stand at random places.
        cut: takes a stretch of about so many characters from the haystack.

    Raises:
        ValueError: for a depth outside [0, 1], or when facts and question alone exceed ``length``.
    """
    if not 0.0 <= depth <= 1.0:
        raise ValueError(f"depth is {depth}, but must lie between 0 and 1")
    asked, *others = names(rng, keys, apart_from=haystack)
    values = [value(rng) for _ in range(keys)]
    places = [depth, *(rng.random() for _ in others)]
    facts = list(map(fact, [asked, *others], values))
    example = Example("", recall(asked), " " + values[0], candidates=tuple(values), depth=depth)
    filler = cut(rng, haystack, length * 8)

    def build(size: int) -> Example:
        return replace(example, context=insert(filler[:size], facts, places))

    def fits(size: int) -> bool:
        built = build(size)
        return count_tokens(built.context + built.question + built.answer) <= length

    if not fits(0):
        raise ValueError(f"{keys} facts and a question do not fit into {length} tokens")
    return build(largest(fits, len(filler)))
