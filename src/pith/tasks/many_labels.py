"""Learning many labels from demonstrations in the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pith.core import param
from pith.tasks import english, generate
from pith.tasks.generated import Generated
from pith.tasks.room import Room

MARKS, NOISE, STRAY = 2, 1, 24
"""Words of a demonstration that its label owns, words that mean nothing, and how many of these there are in all."""


@dataclass(frozen=True, kw_only=True)
class ManyLabels(Generated):
    """How often the model gives a text the label that demonstrations teach: the share of exactly right labels.

    Each label owns two words. A demonstration is both of them with a word that means nothing, in any order, and the
    label: "Text: canoe apple river. Label: lemon."; the text that is asked for is put together in the same way. Every
    round shows each label once, so a prompt holds them all; the length is filled with rounds. As in LIConBench (arXiv
    2404.02060): with many labels the model must read all of a long prompt. The interval is Wilson's.

    In the language "pith" a demonstration is " canoe apple river is lemon.".

    Deviates from LIConBench, which takes six sets of texts that people labelled, with one to five rounds; here texts
    are generated, so that the label follows from the demonstrations alone and from nothing that the model knew.
    """

    metric: ClassVar[str] = "share of exact answers"

    labels: int = param(16, "different labels", ge=2, le=10_000)
    shots: int | None = param(None, "rounds, each of which shows every label once; none is as many as fit", ge=1)

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """Rounds of demonstrations, and a text of one of the labels; a guesser names one of the labels."""
        state = rng.random()

        def build(shots: int) -> generate.Example:
            return self._rounds(Random(state), shots, room)

        return room.fixed(build(self.shots)) if self.shots else room.filled(build, 1, room.length)

    def _rounds(self, rng: Random, shots: int, room: Room) -> generate.Example:
        words = generate.names(rng, (1 + MARKS) * self.labels + STRAY)
        stray, words = words[:STRAY], words[STRAY:]
        labels, marks = words[: self.labels], words[self.labels :]
        owned = {label: marks[MARKS * i : MARKS * (i + 1)] for i, label in enumerate(labels)}

        def text(label: str) -> str:
            spoken = [*owned[label], *rng.sample(stray, NOISE)]
            rng.shuffle(spoken)
            return " ".join(spoken)

        asked, shown = rng.choice(labels), []
        for _ in range(shots):
            shown += [(text(label), label) for label in rng.sample(labels, self.labels)]
        if room.language == "english":
            return english.labels(shown, text(asked), asked, labels)
        context = "".join(generate.fact(one, label) for one, label in shown)
        return generate.Example(context, generate.recall(text(asked)), f" {asked}", candidates=tuple(labels))
