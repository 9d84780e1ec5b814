"""Questions about people: RULER's two tasks of answering, over generated facts."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pith.core import param
from pith.tasks import generate
from pith.tasks.generated import Generated, default
from pith.tasks.room import Room
from pith.tasks.scoring import Match

_FIRST = """
Ada Bruno Carla Dario Edda Felix Greta Hugo Irma Jonas Klara Lars Mira Nils Olga Pablo Rita Stefan Tilda
Ulrich Vera Walter Yvonne Zeno Alma Boris Celia Dora Emil Flora Gustav Hanna Ivan Julia Kurt Lena
"""
_LAST = """
Adler Becker Cole Dunn Engel Fischer Grant Huber Ingram Jansen Keller Lang Moser Nolan Otto Peters Quinn
Reuter Sommer Tanner Unger Vogel Weber Young Ziegler Abbott Brandt Carver Decker Ellis Foster Gruber Holt Irving
Jensen Kramer
"""
_CITIES = """
Lisbon Oslo Vienna Dublin Prague Athens Madrid Warsaw Helsinki Budapest Toronto Boston Denver Chicago Lima
Quito Bogota Santiago Cairo Tunis Nairobi Accra Tokyo Osaka Seoul Manila Jakarta Delhi Sydney Perth Auckland
Reykjavik
"""
_TRADES = """
baker carpenter dentist farmer gardener jeweller lawyer nurse painter pilot plumber sailor tailor teacher
waiter weaver
"""
FIRST, LAST, CITIES, TRADES = (tuple(text.split()) for text in (_FIRST, _LAST, _CITIES, _TRADES))
KIN = ("brother", "sister", "neighbour", "teacher", "boss", "cousin")

MOST = len(FIRST) * len(LAST)
"""People at most."""


@dataclass(frozen=True, kw_only=True)
class QA(Generated):
    """How often the model answers a question about a person: the share of replies that hold the answer.

    The context is short documents, one a person, in random order: where the person lives, what the person does, and
    who somebody of the family or from work is. The question leads from a person, over as many others as there are hops
    more than one, to a city. It is filled with more people. Before the documents and behind them the prompt says that
    they are to answer the question. A guesser names a city that stands in the context. The interval is Wilson's.

    In the language "pith" the prompt has no instruction.

    Deviates from RULER (arXiv 2404.06654), which takes paragraphs and questions from SQuAD and HotpotQA; here people
    are made up, so that no model knows the answers beforehand.
    """

    metric: ClassVar[str] = "share of the answers found"
    match: ClassVar[Match] = "any"

    hops: int = param(1, "documents that must be read to answer", ge=1, le=len(KIN))

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """Documents, one a person."""
        state = rng.random()
        return room.filled(
            lambda more: self._documents(Random(state), self.hops + 1 + more, room), 0, MOST - self.hops - 1
        )

    def _documents(self, rng: Random, people: int, room: Room) -> generate.Example:
        persons = [(FIRST[n % len(FIRST)], LAST[n // len(FIRST)]) for n in rng.sample(range(MOST), people)]
        names = [" ".join(person) for person in persons]
        homes = [rng.choice(CITIES) for _ in names]
        # the first `hops` people are the chain that is asked for; everybody else knows somebody too
        known = [i + 1 if i < self.hops else (i + rng.randrange(1, people)) % people for i in range(people)]
        kin = [rng.choice(KIN) for _ in names]
        documents = [
            f"\n{name} is a {rng.choice(TRADES)} and lives in {home}. The {tie} of {name} is {names[other]}."
            for name, home, tie, other in zip(names, homes, kin, known, strict=True)
        ]
        order = rng.sample(range(people), people)
        who = names[0]
        for step in range(self.hops - 1):
            who = f"the {kin[step]} of {who}"
        answer = homes[self.hops - 1]
        question = f"Question: In which city does {who} live?"
        context = "".join(documents[index] for index in order)
        if room.language == "english":
            numbered = (f"\n\nDocument {i}:{documents[index]}" for i, index in enumerate(order, 1))
            context = f"{_INSTRUCTION}\n\nThese are the documents.{''.join(numbered)}"
        return generate.Example(
            context=context,
            question=f"\n\n{_INSTRUCTION}\n\n{question}" if room.language == "english" else f"\n\n{question}\nAnswer:",
            start="" if room.language == "english" else None,
            answer=f" {answer}",
            candidates=tuple(dict.fromkeys(homes)),
            depth=order.index(self.hops - 1) / max(people - 1, 1),
        )


_INSTRUCTION = "Use the documents to answer the question. Reply with the answer alone and nothing else."


@dataclass(frozen=True, kw_only=True)
class QA1(QA):
    """RULER's qa_1: a question that one document answers."""

    name: ClassVar[str] = "qa_1"


@dataclass(frozen=True, kw_only=True)
class QA2(QA):
    """RULER's qa_2: a question that takes two documents to answer."""

    name: ClassVar[str] = "qa_2"

    hops: int = default(QA, "hops", 2)
