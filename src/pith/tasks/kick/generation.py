"""Going on with a text, beside how it really goes on."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Any, ClassVar

from pith.core import InputError, param
from pith.models import Subject, require_positions
from pith.tasks.base import Calibration, Progress, Quality, Task
from pith.tasks.greedy import Prompt, greedy
from pith.tasks.heldout import heldout_text
from pith.tasks.kick.replies import token_f1
from pith.tasks.scoring import share_interval
from pith.tasks.text import beginning, tokens_of


@dataclass(frozen=True, kw_only=True)
class KickGeneration(Task):
    """How many words the model's own continuation of a text shares with the real one: the mean F1 of their words.

        F1 = 2 |reply and reference| / (|reply| + |reference|), as bags of words

    The texts are stretches of Python's language reference; greedy decoding goes on with them, through its own words,
    where perplexity reads the real ones. A model that repeats itself or breaks off shares few. A guesser quotes another
    place of the text. The interval is Student's over the texts.

    Deviates from LLM-KICK (arXiv 2310.01382), which has GPT-4 compare summaries of news with those of GPT-3.5.
    """

    name: ClassVar[str] = "kick_generation"
    metric: ClassVar[str] = "F1 of words"

    length: int = param(256, "tokens of the text that is read", ge=2)
    reply: int = param(48, "tokens that the model writes, and of the real continuation", ge=1)
    count: int = param(40, "texts", ge=2)
    seed: int = param(0, "of the places where the texts begin", ge=0)

    def run(self, subject: Subject, batch_size: int = 8, progress: Progress | None = None) -> Quality:
        """Measures the subject; `scores` are the texts' F1.

        Raises:
            InputError: the texts are too long, for the model or for the language reference.
        """
        require_positions(subject.model, self.length + self.reply, f"{self.name}: length + reply")
        stretches = self.stretches(subject.tokenizer)
        prompts = [Prompt((), read, self.reply) for read, _ in stretches]
        with subject.applied() as model:
            replies = greedy(model, subject.tokenizer, prompts, batch_size=batch_size, progress=progress)
        scores = tuple(token_f1(one, real) for one, (_, real) in zip(replies, stretches, strict=True))
        return Quality(fmean(scores), *share_interval(scores), self.count, scores)

    def calibrate(self, tokenizer: Any) -> Calibration:
        """An oracle writes the real continuation; a guesser that of the other texts."""
        real = [one for _, one in self.stretches(tokenizer)]
        guessed = fmean(token_f1(other, one) for one in real for other in real if other is not one)
        return Calibration(fmean(token_f1(one, one) for one in real), guessed)

    def stretches(self, tokenizer: Any) -> list[tuple[tuple[int, ...], str]]:
        """The tokens that are read of each text, and its real continuation; one text in each equal part of the whole.

        Raises:
            InputError: the whole is too short.
        """
        begin, tokens, rng = beginning(tokenizer), tokens_of(tokenizer, heldout_text()), Random(self.seed)
        read = self.length - len(begin)
        size, part = read + self.reply, len(tokens) // self.count
        if part < size:
            raise InputError(
                f"{self.name}: count={self.count} texts of {size} tokens do not fit into one of {len(tokens)}; allowed "
                f"are at most {len(tokens) // size}"
            )
        starts = [index * part + rng.randrange(part - size + 1) for index in range(self.count)]
        return [
            (begin + tokens[at : at + read], tokenizer.decode(tokens[at + read : at + size], skip_special_tokens=True))
            for at in starts
        ]
