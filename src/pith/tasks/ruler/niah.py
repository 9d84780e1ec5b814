"""Needles in a haystack: RULER's eight tasks of retrieval."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar, Literal

from pith.core import InputError, param
from pith.tasks import generate
from pith.tasks.generated import Generated, default
from pith.tasks.heldout import heldout_text
from pith.tasks.room import Room
from pith.tasks.scoring import Match

Haystack = Literal["text", "noise", "needles"]
Key = Literal["word", "uuid"]
Value = Literal["number", "uuid"]

MOST = 50_000
"""Needles of a haystack of needles at most."""


@dataclass(frozen=True, kw_only=True)
class Niah(Generated):
    """How many of the asked values the model finds: the share of them that stand in its reply.

    Facts such as " apple is 4821." are hidden at random places of a haystack: Python's language reference, a few
    sentences said again and again, or nothing but other facts of the kind. A key may have several values, and several
    keys may be asked for at once. The interval is Wilson's where every score is 0 or 1, else Student's.

    Deviates from RULER (arXiv 2404.06654): its haystack of text is Paul Graham's essays, and its keys are an adjective
    and a noun.
    """

    metric: ClassVar[str] = "share of the answers found"
    match: ClassVar[Match] = "all"

    keys: int = param(1, "different keys; in a haystack of needles, those that are asked for", ge=1, le=1000)
    values: int = param(1, "values of each key", ge=1, le=100)
    queries: int = param(1, "keys that are asked for", ge=1, le=100)
    haystack: Haystack = param("text", "what the facts are hidden in")
    key: Key = param("word", "what keys are")
    value: Value = param("number", "what values are: four digits, or a random identifier")

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """Facts in a haystack; a guesser names values that stand in it."""
        if self.queries > self.keys:
            raise InputError(
                f"{self.name}: queries={self.queries} is not allowed; allowed are at most keys={self.keys}"
            )
        state = rng.random()
        if self.haystack == "needles":
            return room.filled(lambda more: self._among_needles(Random(state), more), 0, MOST)
        keys = self._keys(rng, self.keys)
        stated = [(key, self._value(rng)) for key in keys for _ in range(self.values)]
        places = [rng.random() for _ in stated]
        example = self._asked(stated, keys[: self.queries], places)
        facts = [generate.fact(key, value) for key, value in stated]
        return room.hidden(rng, example, facts, places, plain=self.haystack == "noise")

    def _among_needles(self, rng: Random, more: int) -> generate.Example:
        keys = self._keys(rng, self.keys + more)
        stated = [(key, self._value(rng)) for key in keys for _ in range(self.values)]
        asked = keys[: self.queries]
        rng.shuffle(stated)
        places = [index / max(len(stated) - 1, 1) for index in range(len(stated))]
        context = "".join(generate.fact(key, value) for key, value in stated)
        return replace(self._asked(stated, asked, places), context=context)

    def _asked(self, stated: list[tuple[str, str]], asked: list[str], places: list[float]) -> generate.Example:
        """The question for some keys; the depth is known where one value is the answer."""
        found = {key: [(v, place) for (k, v), place in zip(stated, places, strict=True) if k == key] for key in asked}
        answers = [value for key in asked for value, _ in found[key]]
        if len(answers) == 1:
            question = generate.recall(asked[0])
        elif len(asked) == 1:
            question = f"\nRecall all {len(answers)} values: {asked[0]} is"
        else:
            question = f"\nRecall: {', '.join(asked)} are"
        return generate.Example(
            context="",
            question=question,
            answer=" " + ", ".join(answers),
            answers=tuple(answers),
            candidates=tuple(value for _, value in stated),
            depth=found[asked[0]][0][1] if len(answers) == 1 else None,
        )

    def _keys(self, rng: Random, count: int) -> list[str]:
        if self.key == "uuid":
            return [_uuid(rng) for _ in range(count)]
        if self.haystack != "text":
            return generate.names(rng, count)
        # a word that the text itself puts before "is" would make the question ambiguous
        return generate.names(rng, count, apart_from=heldout_text())

    def _value(self, rng: Random) -> str:
        return _uuid(rng) if self.value == "uuid" else generate.value(rng)


def _uuid(rng: Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


@dataclass(frozen=True, kw_only=True)
class NiahSingle1(Niah):
    """RULER's niah_single_1: one number in sentences that are said again and again, as in passkey retrieval."""

    name: ClassVar[str] = "niah_single_1"

    haystack: Haystack = default(Niah, "haystack", "noise")


@dataclass(frozen=True, kw_only=True)
class NiahSingle2(Niah):
    """RULER's niah_single_2: one number in a text."""

    name: ClassVar[str] = "niah_single_2"


@dataclass(frozen=True, kw_only=True)
class NiahSingle3(Niah):
    """RULER's niah_single_3: one random identifier of 32 digits in a text."""

    name: ClassVar[str] = "niah_single_3"

    value: Value = default(Niah, "value", "uuid")


@dataclass(frozen=True, kw_only=True)
class NiahMultikey1(Niah):
    """RULER's niah_multikey_1: one of four numbers in a text."""

    name: ClassVar[str] = "niah_multikey_1"

    keys: int = default(Niah, "keys", 4)


@dataclass(frozen=True, kw_only=True)
class NiahMultikey2(Niah):
    """RULER's niah_multikey_2: one number in nothing but facts of its kind."""

    name: ClassVar[str] = "niah_multikey_2"

    haystack: Haystack = default(Niah, "haystack", "needles")


@dataclass(frozen=True, kw_only=True)
class NiahMultikey3(Niah):
    """RULER's niah_multikey_3: one random identifier, asked for by another, in nothing but facts of its kind."""

    name: ClassVar[str] = "niah_multikey_3"

    haystack: Haystack = default(Niah, "haystack", "needles")
    key: Key = default(Niah, "key", "uuid")
    value: Value = default(Niah, "value", "uuid")


@dataclass(frozen=True, kw_only=True)
class NiahMultivalue(Niah):
    """RULER's niah_multivalue: the four numbers of one key in a text."""

    name: ClassVar[str] = "niah_multivalue"

    values: int = default(Niah, "values", 4)


@dataclass(frozen=True, kw_only=True)
class NiahMultiquery(Niah):
    """RULER's niah_multiquery: the numbers of four keys in a text, all asked for at once."""

    name: ClassVar[str] = "niah_multiquery"

    keys: int = default(Niah, "keys", 4)
    queries: int = default(Niah, "queries", 4)
