"""Knowledge, without a book and with one."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Any, ClassVar

from pith.core import InputError, param
from pith.models import Subject, require_positions
from pith.tasks.base import Calibration, Progress, Quality, Query, Task
from pith.tasks.generated import default
from pith.tasks.greedy import Prompt, greedy
from pith.tasks.kick.facts import Fact, drawn, facts
from pith.tasks.kick.replies import begins_with
from pith.tasks.scoring import share_interval


@dataclass(frozen=True, kw_only=True)
class KickFactoid(Task):
    """How often the model knows how a line of Python goes on: the share of replies that begin with the right word.

    The questions are beginnings of lines that Python's library goes on with in one way nearly always: "def __init__("
    with "self". Nothing in the prompt helps: a model must have learned it. A guesser names one of the answers. The
    interval is Wilson's.

    Deviates from LLM-KICK (arXiv 2310.01382), which asks FreebaseQA and looks for the answer anywhere in the text, the
    question included; here the reply alone counts, from its beginning.
    """

    name: ClassVar[str] = "kick_factoid"
    metric: ClassVar[str] = "share of right answers"

    lines: int = param(0, "lines of a book before the question, of which one holds the answer; 0 is no book", ge=0)
    count: int = param(100, "questions", ge=1)
    seed: int = param(0, "of the draw of questions and lines", ge=0)

    @property
    def asks(self) -> Query:
        """The question stands in the prompt."""
        return "aware"

    def run(self, subject: Subject, batch_size: int = 8, progress: Progress | None = None) -> Quality:
        """Measures the subject; `scores` are 1 for the right word and 0 for any other.

        Raises:
            InputError: there are not so many questions or lines, or the prompts are too long.
        """
        asked, prompts = drawn(self.name, self.count, self.seed), self.prompts(subject.tokenizer)
        longest = max(len(one.context) + len(one.question) + one.most for one in prompts)
        require_positions(subject.model, longest, f"{self.name}: lines={self.lines}")
        with subject.applied() as model:
            replies = greedy(model, subject.tokenizer, prompts, batch_size=batch_size, progress=progress)
        scores = [float(begins_with(reply, fact.answer)) for reply, fact in zip(replies, asked, strict=True)]
        return Quality(fmean(scores), *share_interval(scores), self.count, tuple(scores))

    def calibrate(self, tokenizer: Any) -> Calibration:
        """An oracle gives the answer; a guesser names one of all answers, or one of those that stand in the book."""
        every = {fact.answer.strip() for fact in facts()}
        guessed = []
        for index, fact in enumerate(drawn(self.name, self.count, self.seed)):
            choices = [one.answer.strip() for one in self.book(index, fact)] or [*every]
            guessed.append(choices.count(fact.answer.strip()) / len(choices))
        return Calibration(1.0, fmean(guessed))

    def prompts(self, tokenizer: Any) -> list[Prompt]:
        """What is read for each question, as tokens."""
        asked = drawn(self.name, self.count, self.seed)
        return [self._prompt(tokenizer, index, fact) for index, fact in enumerate(asked)]

    def book(self, index: int, fact: Fact) -> list[Fact]:
        """The lines before a question, the one with the answer among them.

        Raises:
            InputError: there are not so many.
        """
        others = [one for one in facts() if one != fact]
        if self.lines > len(others) + 1:
            raise InputError(f"{self.name}: lines={self.lines} is not allowed; allowed are at most {len(others) + 1}")
        if not self.lines:
            return []
        rng = Random(f"{self.seed} {index}")
        book = [fact, *rng.sample(others, self.lines - 1)]
        rng.shuffle(book)
        return book

    def _prompt(self, tokenizer: Any, index: int, fact: Fact) -> Prompt:
        book = "".join(one.line for one in self.book(index, fact))
        short, long = (len(tokenizer(book + end, verbose=False).input_ids) for end in (fact.asked, fact.line))
        # one token more, so that it is seen whether the word ends
        return Prompt.of(tokenizer, book, fact.asked, max(long - short, 1) + 1)


@dataclass(frozen=True, kw_only=True)
class KickRetrieval(KickFactoid):
    """How often the model finds how a line goes on in a book before it: `kick_factoid` with the answer in sight.

    The book is lines of the same kind in random order, the whole line of the question among them. The difference to
    `kick_factoid` with the same parameters is what the model retrieves; LLM-KICK finds that it outlives knowledge. A
    guesser names an answer that stands in the book. The interval is Wilson's.

    Deviates from LLM-KICK (arXiv 2310.01382), which asks TriviaQA over web pages and counts a reply as right where it
    holds the answer or the answer holds it, so that an empty reply always is.
    """

    name: ClassVar[str] = "kick_retrieval"

    lines: int = default(KickFactoid, "lines", 24)
