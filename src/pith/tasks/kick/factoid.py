"""Knowledge without a book."""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

from pith.core import param
from pith.models import Subject
from pith.tasks.base import Calibration, Progress, Quality, Query, Task
from pith.tasks.early import heard
from pith.tasks.generated import Generated, default
from pith.tasks.greedy import Prompt, greedy
from pith.tasks.kick.facts import Fact, drawn, facts
from pith.tasks.scoring import share_interval
from pith.tasks.text import encode
from pith.texts import Language, language_of

SENTENCE = 8
"""Tokens beside its answer that a reply to a question may have."""


@dataclass(frozen=True, kw_only=True)
class KickFactoid(Task):
    """How often the model knows a fact that nothing in the prompt tells: the share of right replies.

    In English the questions are such as "What is the capital of France?", and a reply is right where its first line
    holds the answer as whole words, in capitals or not. The built-in model, which has read nothing but Python, is asked
    how lines go on that Python's library goes on with in one way nearly always, such as "def __lt__(self," with
    "other"; its reply must begin with the word. A guesser names one of the answers. The interval is Wilson's.

    Deviates from LLM-KICK (arXiv 2310.01382), which asks FreebaseQA and looks for the answer anywhere in the text, the
    question included; here the reply alone counts.
    """

    name: ClassVar[str] = "kick_factoid"
    metric: ClassVar[str] = "share of right answers"

    count: int = param(80, "questions", ge=1)
    seed: int = param(0, "of the draw of questions", ge=0)
    language: Language = default(Generated, "language", "auto")

    @property
    def asks(self) -> Query:
        """The question stands in the prompt."""
        return "aware"

    def run(self, subject: Subject, batch_size: int = 8, progress: Progress | None = None) -> Quality:
        """Measures the subject; `scores` are 1 for the right word and 0 for any other.

        Raises:
            InputError: there are not so many questions.
        """
        asked = drawn(self.name, language_of(subject.tokenizer, self.language), self.count, self.seed)
        prompts = [_prompt(subject.tokenizer, fact) for fact in asked]
        with subject.applied() as model:
            hear = heard(progress, self.count, lambda index, reply: score(reply, asked[index]))
            replies = greedy(
                model, subject.tokenizer, prompts, batch_size=batch_size, progress=progress, heard=hear
            )  # fmt: skip
        scores = tuple(score(reply, fact) for reply, fact in zip(replies, asked, strict=True))
        return Quality(fmean(scores), *share_interval(scores), self.count, scores)

    def calibrate(self, tokenizer: Any) -> Calibration:
        """An oracle gives the answer; a guesser names one of all answers."""
        spoken = language_of(tokenizer, self.language)
        asked = drawn(self.name, spoken, self.count, self.seed)
        every = {fact.answer.strip() for fact in facts(spoken)}
        chance = fmean(score(guess, fact) for fact in asked for guess in every)
        return Calibration(fmean(score(fact.answer, fact) for fact in asked), chance)


def score(reply: str, fact: Fact) -> float:
    """1 where a line's reply begins with the word, or a question's first line holds the answer; else 0."""
    words = rf"{re.escape(fact.answer.strip())}(?!\w)"
    if not fact.kind:
        return float(re.match(words, reply.strip()) is not None)
    first = reply.strip().partition("\n")[0]
    return float(re.search(rf"(?<!\w){words}", first, re.IGNORECASE) is not None)


def _prompt(tokenizer: Any, fact: Fact) -> Prompt:
    read, whole = (len(encode(tokenizer, text)) for text in (fact.question, fact.question + fact.answer))
    # one token more, so that it is seen whether the word ends; some more for an answer within a sentence
    return Prompt.of(tokenizer, "", fact.question, max(whole - read, 1) + (SENTENCE if fact.kind else 1))
