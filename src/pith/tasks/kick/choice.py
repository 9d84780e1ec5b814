"""A choice among answers, by their likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Any, ClassVar

from pith.core import param
from pith.models import Subject
from pith.tasks.base import Calibration, Progress, Quality, Query, Task
from pith.tasks.continuation import Pair, log_likelihoods
from pith.tasks.generated import Generated, default
from pith.tasks.greedy import Prompt
from pith.tasks.kick.facts import drawn, facts
from pith.tasks.scoring import share_interval
from pith.texts import Language, language_of


@dataclass(frozen=True, kw_only=True)
class KickChoice(Task):
    """How often the model holds the right word for the likeliest of several: the share of right choices.

        choice = argmax_answer log p(answer | question) / tokens of the answer

    The questions are those of `kick_factoid`; the wrong answers are right ones of other questions of the same form. A
    guesser takes any of them. The interval is Wilson's.

    Deviates from LLM-KICK (arXiv 2310.01382), which asks MMLU with five worked examples and compares one generated
    letter; a small model cannot name letters, and a model that begins a new line first would fail.
    """

    name: ClassVar[str] = "kick_choice"
    metric: ClassVar[str] = "share of right choices"

    choices: int = param(4, "answers to choose from", ge=2, le=20)
    count: int = param(80, "questions", ge=1)
    seed: int = param(0, "of the draw of questions and wrong answers", ge=0)
    language: Language = default(Generated, "language", "auto")

    @property
    def asks(self) -> Query:
        """The question stands in the prompt."""
        return "aware"

    def run(self, subject: Subject, batch_size: int = 8, progress: Progress | None = None) -> Quality:
        """Measures the subject; `scores` are 1 for the right choice and 0 for any other.

        Raises:
            InputError: there are not so many questions.
            ModelError: the model keeps no cache, through which answers are read.
        """
        pairs, config = self.pairs(subject.tokenizer), subject.model.config.get_text_config(decoder=True)
        most = getattr(config, "max_position_embeddings", None) or max(len(a) + len(b) for a, b in pairs)
        with subject.applied() as model:
            found = log_likelihoods(model, pairs, most, batch_size, told=progress)
        likely = [value / len(answer) for (value, _), (_, answer) in zip(found, pairs, strict=True)]
        rows = [likely[start : start + self.choices] for start in range(0, len(likely), self.choices)]
        scores = tuple(float(row[0] > max(row[1:])) for row in rows)
        return Quality(fmean(scores), *share_interval(scores), self.count, scores)

    def calibrate(self, tokenizer: Any) -> Calibration:
        """An oracle takes the right one; a guesser any."""
        return Calibration(1.0, 1 / self.choices)

    def pairs(self, tokenizer: Any) -> list[Pair]:
        """Each question with each of its answers, the right one first, as tokens."""
        found: list[Pair] = []
        spoken = language_of(tokenizer, self.language)
        for index, fact in enumerate(drawn(self.name, spoken, self.count, self.seed)):
            alike = sorted({other.answer for other in facts(spoken) if fact.alike(other)})
            others = [one for one in alike if one.strip() != fact.answer.strip()]
            wrong = Random(f"{self.seed} {index}").sample(others, self.choices - 1)
            for answer in (fact.answer, *wrong):
                prompt = Prompt.of(tokenizer, fact.question, answer, 0)
                found.append((prompt.context, prompt.question))
        return found
