"""Finding an answer in the prompt."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pith.core import param
from pith.tasks import generate
from pith.tasks.generated import default
from pith.tasks.needle import Needle
from pith.tasks.room import Room


@dataclass(frozen=True, kw_only=True)
class KickRetrieval(Needle):
    """How often the model finds a fact in the text before the question: the share of exact answers.

    The questions of `needle`, over a text of about as many characters as LLM-KICK's web pages have. Without the text
    nobody can know the answer: what a model scores then it does not retrieve. LLM-KICK finds that retrieval outlives
    knowledge, so read it beside `kick_factoid`. A guesser names a value that stands in the text. The interval is
    Wilson's.

    Deviates from LLM-KICK (arXiv 2310.01382), which asks TriviaQA, which models know in part, and counts a reply as
    right where it holds the answer or the answer holds it, so that an empty reply always is.
    """

    name: ClassVar[str] = "kick_retrieval"

    book: bool = param(True, "whether the text stands before the question")
    length: int = default(Needle, "length", 768)

    def draw(self, rng: Random, room: Room) -> generate.Example:
        """A fact in a text, or the question alone; a guesser then makes a value up."""
        example = super().draw(rng, room)
        return example if self.book else dataclasses.replace(example, context="", candidates=(), depth=None)
