"""Variable tracking, RULER's task of following several steps."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from string import ascii_uppercase
from typing import ClassVar

from pith.core import param
from pith.tasks import generate
from pith.tasks.filler import NOISE, insert
from pith.tasks.generated import Generated
from pith.tasks.room import Room
from pith.tasks.scoring import Match
from pith.tasks.words import KEY_WORDS

SHOWN = 10
"""Steps of the worked example's chain at most."""


@dataclass(frozen=True, kw_only=True)
class VT(Generated):
    """How much of a chain of assignments the model follows: the share of its names in the reply.

    "VAR KQZTA = 48213." and later "VAR BWMLE = VAR KQZTA." stand, in this order, at random places between a few
    sentences that are repeated all along; a worked example with short names stands before them. Given the number, the
    answer is every name of its chain, so a guesser names variables of the prompt. The interval is Wilson's where every
    score is 0 or 1, else Student's.

    In the language "pith" the assignments are " apple is 4821." and " river is apple."; asked for the last name, the
    answer spells the chain down to its number, and a guesser names words of that language.
    """

    metric: ClassVar[str] = "share of the answers found"
    match: ClassVar[Match] = "all"

    chains: int = param(1, "chains, of which one is asked for", ge=1, le=100)
    hops: int = param(4, "steps from the last name to the first", ge=1, le=100)

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """Chains in noise."""
        if room.language == "english":
            return self._english(rng, room)
        facts, steps = generate.assignments(rng, self.chains, self.hops + 1)
        example = generate.chained(facts, steps, rng)
        parts = tuple(example.answer.strip().split(" is "))
        numbers = [chain[-1] for chain in steps]
        example = dataclasses.replace(example, context="", answers=parts, candidates=(*KEY_WORDS, *numbers))
        return room.hidden(rng, example, facts, sorted(rng.random() for _ in facts), plain=True)

    def _english(self, rng: Random, room: Room) -> generate.Example:
        facts, chains = _variables(rng, self.chains, self.hops, letters=5)
        asked = rng.randrange(self.chains)
        shown, [(number, names)] = _variables(rng, 1, min(self.hops, SHOWN), letters=3)
        text = insert(NOISE * 2, shown, [(i + 1) / (len(shown) + 1) for i in range(len(shown))], in_order=True)
        worked = (
            f"{_INSTRUCTION}{text.strip()}{_question(number)}\nAnswer: {_start(number, names)} {' '.join(names)}\n\n"
        )
        number, names = chains[asked]
        example = generate.Example(
            context=worked + _INSTRUCTION.rstrip("\n"),
            question=_question(number),
            answer=f" {' '.join(names)}",
            answers=tuple(names),
            candidates=tuple(re.findall(r"VAR (\w+) =", " ".join([*shown, *facts]))),
            start=_start(number, names),
        )
        return room.hidden(rng, example, facts, sorted(rng.random() for _ in facts), plain=True)


_INSTRUCTION = "The text below hides assignments to variables. Keep track of the values that they pass on.\n\n"


def _question(number: str) -> str:
    return f"\nQuestion: Which variables have the value {number} in the text above? Name all of them."


def _start(number: str, names: Sequence[str]) -> str:
    return f"By the assignments in the text above, {len(names)} variables have the value {number}:"


def _variables(rng: Random, chains: int, hops: int, letters: int) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The assignments of chains, interleaved, and each chain's number and names, first to last."""
    drawn: dict[str, None] = {}
    while len(drawn) < chains * (hops + 1):
        drawn["".join(rng.choice(ascii_uppercase) for _ in range(letters))] = None
    words = list(drawn)
    made = [(generate.value(rng, 5), words[i : i + hops + 1]) for i in range(0, len(words), hops + 1)]
    order = rng.sample([i for i in range(chains) for _ in range(hops + 1)], len(words))
    facts, done = [], [0] * chains
    for chain in order:
        number, names = made[chain]
        at = done[chain]
        facts.append(f" VAR {names[at]} = {f'VAR {names[at - 1]}' if at else number}.")
        done[chain] += 1
    return facts, made
