"""Needles in a haystack: RULER's eight tasks of retrieval."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar, Literal

from pith.core import InputError, param
from pith.tasks import generate
from pith.tasks.generated import Generated, default
from pith.tasks.room import Room
from pith.tasks.scoring import Match

Filler = Literal["text", "noise", "needles"]
Key = Literal["word", "uuid"]
Value = Literal["number", "uuid"]

MOST = 50_000
"""Needles of a haystack of needles at most."""


@dataclass(frozen=True, kw_only=True)
class Niah(Generated):
    """How many of the asked values the model finds: the share of them that stand in its reply.

    Facts such as "One of the special numbers for apple is 4821507." are hidden at random places of a haystack: ordinary
    prose, a few sentences repeated all along, or nothing but other facts of the kind. The prompt says so before the
    text. A key may have several values, and several keys may be asked for at once. The interval is Wilson's where every
    score is 0 or 1, else Student's.

    In the language "pith" facts are " apple is 4821.", and the text is Python's language reference.

    Deviates from RULER (arXiv 2404.06654): its text is Paul Graham's essays, and its keys are an adjective and a noun.
    """

    metric: ClassVar[str] = "share of the answers found"
    match: ClassVar[Match] = "all"

    keys: int = param(1, "different keys; in a haystack of needles, those that are asked for", ge=1, le=1000)
    values: int = param(1, "values of each key", ge=1, le=100)
    queries: int = param(1, "keys that are asked for", ge=1, le=100)
    filler: Filler = param("text", "what the facts are hidden in")
    haystack: str | None = param(
        None, "path of a text file for the filler text; none is Pith's prose, for pith Python's reference", file=True
    )
    key: Key = param("word", "what keys are")
    value: Value = param("number", "what values are: seven digits, four for pith, or a random identifier")

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """Facts in a haystack; a guesser names values that stand in it."""
        if self.queries > self.keys:
            raise InputError(
                f"{self.name}: queries={self.queries} is not allowed; allowed are at most keys={self.keys}"
            )
        state = rng.random()
        if self.filler == "needles":
            return room.filled(lambda more: self._among_needles(Random(state), more, room), 0, MOST)
        keys = self._keys(rng, self.keys, room)
        stated = [(key, self._value(rng, room)) for key in keys for _ in range(self.values)]
        places = [rng.random() for _ in stated]
        example = self._asked(stated, keys[: self.queries], places, room)
        facts = [self._fact(key, value, room) for key, value in stated]
        return room.hidden(rng, example, facts, places, plain=self.filler == "noise")

    def _among_needles(self, rng: Random, more: int, room: Room) -> generate.Example:
        keys = self._keys(rng, self.keys + more, room)
        stated = [(key, self._value(rng, room)) for key in keys for _ in range(self.values)]
        asked = keys[: self.queries]
        rng.shuffle(stated)
        places = [index / max(len(stated) - 1, 1) for index in range(len(stated))]
        example = self._asked(stated, asked, places, room)
        facts = "".join(self._fact(key, value, room) for key, value in stated)
        return replace(example, context=example.context + (facts.lstrip() if example.context else facts))

    def _fact(self, key: str, value: str, room: Room) -> str:
        if room.language == "pith":
            return generate.fact(key, value)
        return f" One of the special {self._things} for {key} is {value}."

    def _asked(
        self, stated: list[tuple[str, str]], asked: list[str], places: list[float], room: Room
    ) -> generate.Example:
        """The question for some keys; the depth is known where one value is the answer."""
        found = {key: [(v, place) for (k, v), place in zip(stated, places, strict=True) if k == key] for key in asked}
        answers = [value for key in asked for value, _ in found[key]]
        wording = _pith if room.language == "pith" else self._english
        context, question, start = wording(asked, len(answers))
        return generate.Example(
            context=context,
            question=question,
            start=start,
            answer=" " + ", ".join(answers),
            answers=tuple(answers),
            candidates=tuple(value for _, value in stated),
            depth=found[asked[0]][0][1] if len(answers) == 1 else None,
        )

    @property
    def _things(self) -> str:
        return "numbers" if self.value == "number" else "identifiers"

    def _english(self, asked: list[str], answers: int) -> tuple[str, str, str]:
        """The instruction before the text, the question behind it and the beginning of the answer."""
        things, some, verb = self._things, "Some", "are"
        what, them = f"are all the special {things}", "them"
        if answers == 1:
            things, some, verb = things[:-1], "A", "is"
            what, them = f"is the special {things}", "it"
        names = asked[0] if len(asked) == 1 else f"{', '.join(asked[:-1])} and {asked[-1]}"
        hidden = f"{some} special {things} {verb} hidden in the text below."
        return (
            f"{hidden} Remember {them}, because a question about {them} follows the text.\n",
            f"\nWhat {what} for {names} in the text above?",
            f"The special {things} for {names} in the text above {verb}",
        )

    def _keys(self, rng: Random, count: int, room: Room) -> list[str]:
        if self.key == "uuid":
            return [_uuid(rng) for _ in range(count)]
        if self.filler != "text":
            return generate.names(rng, count)
        # a word of which the text itself states something would make the question ambiguous
        return generate.names(
            rng, count, room.text, " {} is" if room.language == "pith" else f"{self._things} for {{}}"
        )

    def _value(self, rng: Random, room: Room) -> str:
        return _uuid(rng) if self.value == "uuid" else generate.value(rng, 4 if room.language == "pith" else 7)


def _pith(asked: list[str], answers: int) -> tuple[str, str, None]:
    if answers == 1:
        return "", generate.recall(asked[0]), None
    if len(asked) == 1:
        return "", f"\nRecall all {answers} values: {asked[0]} is", None
    return "", f"\nRecall: {', '.join(asked)} are", None


def _uuid(rng: Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


@dataclass(frozen=True, kw_only=True)
class NiahSingle1(Niah):
    """RULER's niah_single_1: one number in sentences that are said again and again, as in passkey retrieval."""

    name: ClassVar[str] = "niah_single_1"

    filler: Filler = default(Niah, "filler", "noise")


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

    filler: Filler = default(Niah, "filler", "needles")


@dataclass(frozen=True, kw_only=True)
class NiahMultikey3(Niah):
    """RULER's niah_multikey_3: one random identifier, asked for by another, in nothing but facts of its kind."""

    name: ClassVar[str] = "niah_multikey_3"

    filler: Filler = default(Niah, "filler", "needles")
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
