"""What all tasks of generated questions have in common."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, ClassVar

from pith.core import InputError, param, read_text
from pith.models import Subject, require_positions
from pith.tasks.base import BatchedTask, Calibration, Progress, Quality, Query
from pith.tasks.early import heard
from pith.tasks.generate import Example
from pith.tasks.greedy import Prompt, greedy_batches
from pith.tasks.prose import prose_text
from pith.tasks.room import Room
from pith.tasks.scoring import Match, calibration, score, share_interval
from pith.tasks.text import encode
from pith.texts import Language, Spoken, language_of

TALK, BRIEF = 48, 8
"""Tokens that a reply in a chat may have beside its answer, and those where the prompt holds the answer's beginning."""


@dataclass(frozen=True, kw_only=True)
class Generated(BatchedTask):
    """Questions about a generated context, which greedy decoding answers; a task writes `draw`.

    Example `i` depends on the seed and `i` only. Query-aware, context and question are read as one prompt;
    query-agnostic, the context is read first, so that a recipe makes the cache smaller before the question is known.

    Class attributes:
        match: how a reply is scored: exactly, by the share of the answer's parts in it, or by one of them.
    """

    match: ClassVar[Match] = "exact"

    length: int = param(1024, "tokens of context, question and reply together", ge=1)
    count: int = param(50, "questions", ge=1)
    seed: int = param(0, "of the questions", ge=0)
    query: Query = param("aware", "whether the cache is made smaller with the question in sight, or before it is known")
    chat: bool = param(
        False, "whether the tokenizer's chat template comes on top; a reply then only has to hold the answer"
    )
    language: Language = param(
        "auto", "plain English, or pith, in which the built-in model was trained; auto takes pith for that model only"
    )

    @abstractmethod
    def draw(self, rng: Random, room: Room) -> Example:
        """One example.

        Args:
            rng: the only source of chance.
            room: the length, to be filled where there is filler.

        Raises:
            InputError, ValueError: there can be no such example; the message says why.
        """

    @property
    def asks(self) -> Query:
        """Whether its question is seen before the cache is made smaller."""
        return self.query

    @property
    def wordy(self) -> int:
        """How many times as long as the answer a reply may be: one whose parts are looked for may be worded freely."""
        return 1 if self.match == "exact" else 2

    def examples(self, tokenizer: Any) -> tuple[Example, ...]:
        """The questions, the same for every model that shares the tokenizer.

        Raises:
            InputError: there can be no such examples; the message says why.
        """
        spoken = self.spoken(tokenizer)
        return _examples(dataclasses.replace(self, query="aware", chat=False, language=spoken), tokenizer)

    def spoken(self, tokenizer: Any) -> Spoken:
        """Return the language in which the questions are worded for the tokenizer's model."""
        return language_of(tokenizer, self.language)

    def prompts(self, tokenizer: Any) -> list[Prompt]:
        """What is read for each question, as tokens.

        Raises:
            InputError: as of `examples`, or the tokenizer has no chat template.
        """
        return [
            Prompt.of(
                tokenizer,
                e.context,
                e.question,
                self._most(tokenizer, e),
                self.chat,
                (e.start or "") if self.chat else e.lead,
            )
            for e in self.examples(tokenizer)
        ]

    def check_length(self, model: Any) -> None:
        """Raise an error if the length is past the model's positions.

        Raises:
            InputError: it is.
        """
        require_positions(model, self.length, f"{self.name}: length={self.length}")

    def batches(
        self, subject: Subject, batch_size: int = 8, progress: Progress | None = None
    ) -> Generator[None, None, Quality]:
        """See the contract; `scores` are from 0 to 1.

        Raises:
            InputError: the length is past the model's positions, or there can be no such examples.
            ModelError: the model keeps no cache, which a query-agnostic question needs.
        """
        self.check_length(subject.model)
        examples, prompts = self.examples(subject.tokenizer), self.prompts(subject.tokenizer)
        longest = max(len(p.context) + len(p.question) + p.most for p in prompts)
        require_positions(subject.model, longest, f"{self.name}: length={self.length} with its reply")
        hear = heard(progress, self.count, lambda index, reply: score(examples[index], reply, self._match))
        replies: dict[int, str] = {}
        for found in greedy_batches(subject.applied, subject.tokenizer, prompts, self.query, batch_size):
            replies |= found
            hear(found)
            if progress:
                progress(len(replies), self.count)
            yield
        scores = tuple(score(e, replies[index], self._match) for index, e in enumerate(examples))
        low, high = share_interval(scores)
        depths = tuple(e.depth for e in examples if e.depth is not None)
        return Quality(
            sum(scores) / self.count, low, high, self.count, scores, depths if len(depths) == self.count else ()
        )

    def calibrate(self, tokenizer: Any) -> Calibration:
        """An oracle writes the answers; a guesser names what has their form, of what stands in the context if it can.

        Raises:
            InputError: there can be no such examples.
        """
        return calibration(self.examples(tokenizer), self._match)

    @property
    def _match(self) -> Match:
        return "all" if self.chat and self.match == "exact" else self.match

    def _most(self, tokenizer: Any, example: Example) -> int:
        """The tokens of a reply: those of the answer, and more where it may be worded in another way."""
        prompt = example.context + example.question + example.lead
        whole, read = (len(encode(tokenizer, text)) for text in (prompt + example.answer, prompt))
        return max(whole - read, 1) * self.wordy + (0 if not self.chat else BRIEF if example.start else TALK)


def default(task: Any, name: str, value: Any) -> Any:
    """A parameter of a task that another task derives from it, with another default."""
    field = next(field for field in dataclasses.fields(task) if field.name == name)
    return dataclasses.field(default=value, metadata=field.metadata)


@lru_cache(maxsize=32)  # a comparison asks many recipes the same questions, and making them costs seconds
def _examples(task: Generated, tokenizer: Any) -> tuple[Example, ...]:
    spoken, file = task.spoken(tokenizer), getattr(task, "haystack", None)
    text = read_text(file, label=f"{task.name}: haystack=") if file else prose_text() if spoken == "english" else None
    room = Room(task.name, task.length, lambda text: len(encode(tokenizer, text)), task.wordy, spoken, text)

    def draw(index: int) -> Example:
        try:
            return task.draw(Random(f"{task.seed} {index}"), room)
        except ValueError as error:
            raise InputError(f"{task.name}: length={task.length} is too short: {error}") from None

    return tuple(map(draw, range(task.count)))
