"""Grade-school mathematics in words, from a local file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from typing import Any, ClassVar

from pith.core import InputError, param, read_text, shown
from pith.models import Subject, require_positions
from pith.tasks.base import Calibration, Progress, Quality, Query, Task
from pith.tasks.chat import encode_chat
from pith.tasks.early import heard
from pith.tasks.greedy import Prompt, greedy
from pith.tasks.scoring import share_interval

MARK = "####"
"""What stands before the final number of a worked answer."""

STOP = "Question:"
"""With what a model that has answered goes on."""

_NUMBER = r"(?:(?<!\w)-)?(?:\d+(?:\.\d+)?|\.\d+)"


@dataclass(frozen=True)
class Problem:
    """A question, its worked answer, and the number at the end of that."""

    question: str
    answer: str
    number: str


@dataclass(frozen=True, kw_only=True)
class GSM8K(Task):
    """Grade-school mathematics in words (arXiv 2110.14168): worked examples, a question, and the number at the end of
    the model's own worked answer.

        correct = (number after the first "####", else the last number) = (number after "####" in the reference)

    Thousands separators, `$` and a full stop at the end do not count; apart from that numbers are compared as written.
    The file has one JSON object a line with `question` and `answer`, as the authors publish them. Examples and
    questions are drawn from it without repetition; every question has the same worked examples. Greedy decoding, up to
    where the model asks the next question itself. With `chat`, each worked example is a turn of the user and a turn of
    the assistant, as lm-evaluation-harness writes them with `--apply_chat_template --fewshot_as_multiturn`.
    """

    name: ClassVar[str] = "gsm8k"
    metric: ClassVar[str] = "exact match"

    path: str | None = param(None, "path of the JSON Lines file; one must be given", file=True)
    shots: int = param(8, "worked examples before the question", ge=0)
    count: int = param(100, "questions", ge=1)
    max_new_tokens: int = param(256, "most tokens of an answer", ge=1)
    flexible: bool = param(True, "whether the last number counts where there is no '####'")
    chat: bool = param(False, "whether the examples are earlier turns of a chat, in the tokenizer's chat template")
    seed: int = param(0, "of the draw of examples and questions", ge=0)

    @property
    def asks(self) -> Query:
        """The question stands in the prompt."""
        return "aware"

    def run(self, subject: Subject, batch_size: int = 8, progress: Progress | None = None) -> Quality:
        """Measures the subject; `scores` are 1 for the right number and 0 for any other.

        Raises:
            InputError: the file will not do, the prompts are too long, or the tokenizer has no chat template.
        """
        (_, problems), prompts = self.problems(), self.prompts(subject.tokenizer)
        longest = max(len(prompt.context) + len(prompt.question) for prompt in prompts)
        what = f"{self.name}: shots={self.shots} with max_new_tokens={self.max_new_tokens}"
        require_positions(subject.model, longest + self.max_new_tokens, what)
        with subject.applied() as model:
            hear = heard(progress, self.count, lambda index, reply: self.score(reply, problems[index]))
            replies = greedy(
                model, subject.tokenizer, prompts, batch_size=batch_size, progress=progress, heard=hear
            )  # fmt: skip
        scores = [self.score(reply, problem) for reply, problem in zip(replies, problems, strict=True)]
        return Quality(sum(scores) / self.count, *share_interval(scores), self.count, tuple(scores))

    def calibrate(self, tokenizer: Any) -> Calibration:
        """An oracle writes the reference; a guesser writes that of another question, any of the file's."""
        every, (_, problems) = _problems(self.path), self.problems()
        numbers = Counter(problem.number for problem in every)
        chance = sum(numbers[problem.number] - 1 for problem in problems) / (len(every) - 1) if len(every) > 1 else 0.0
        oracle = sum(self.score(problem.answer, problem) for problem in problems)
        return Calibration(oracle / self.count, chance / self.count)

    def prompts(self, tokenizer: Any) -> list[Prompt]:
        """What is read for each question, as tokens.

        Raises:
            InputError: as of `problems`, or the tokenizer has no chat template.
        """
        examples, problems = self.problems()
        if self.chat:
            return [self._turns(tokenizer, examples, one) for one in problems]
        context = "".join(f"{_asked(one)} {one.answer}\n\n" for one in examples)
        prompts = (Prompt.of(tokenizer, context, _asked(one), self.max_new_tokens) for one in problems)
        return [replace(one, stop=(STOP,)) for one in prompts]

    def _turns(self, tokenizer: Any, examples: Sequence[Problem], problem: Problem) -> Prompt:
        """Return a problem's prompt as a chat whose earlier turns are the worked examples."""
        messages = [
            {"role": role, "content": text}
            for one in examples
            for role, text in (("user", _asked(one)), ("assistant", one.answer))
        ]
        tokens = encode_chat(tokenizer, [*messages, {"role": "user", "content": _asked(problem)}])
        return Prompt((), tuple(tokens), self.max_new_tokens, stop=(STOP,))

    def problems(self) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
        """The worked examples and the questions; more questions do not change the first ones.

        Raises:
            InputError: the file cannot be read, has a line that is no problem, or too few of them.
        """
        every = _problems(self.path)
        if self.shots + self.count > len(every):
            allowed = f"at most {len(every) - self.shots}" if len(every) > self.shots else "fewer shots"
            raise InputError(
                f"{self.name}: {shown(self.path)} has {len(every)} problems, too few for shots={self.shots} and "
                f"count={self.count}; allowed is {allowed}"
            )
        drawn = Random(self.seed).sample(every, len(every))
        return tuple(drawn[: self.shots]), tuple(drawn[self.shots : self.shots + self.count])

    def score(self, reply: str, problem: Problem) -> float:
        """1 where the reply's number is the problem's, else 0."""
        return float(number_of(reply, self.flexible) == problem.number)


def _asked(problem: Problem) -> str:
    return f"Question: {problem.question}\nAnswer:"


def number_of(reply: str, flexible: bool = True) -> str | None:
    """The number that a reply gives as its answer, as plain digits; None where it gives none.

    Args:
        reply: a worked answer.
        flexible: whether the last number is taken where none follows "####".
    """
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", reply.replace("$", ""))
    marked = re.search(rf"{MARK}\s*({_NUMBER})", plain)
    if marked:
        return marked[1]
    numbers = re.findall(_NUMBER, plain) if flexible else []
    return numbers[-1] if numbers else None


def _problems(path: str | None) -> tuple[Problem, ...]:
    if path is None:
        raise InputError("gsm8k: path=None is not allowed; allowed is a JSON Lines file, such as path='gsm8k.jsonl'")
    return _parsed(path, read_text(path, label="gsm8k: path="))


@lru_cache(maxsize=4)  # every recipe of a comparison is asked the same
def _parsed(path: str, text: str) -> tuple[Problem, ...]:
    lines = enumerate(text.split("\n"), start=1)
    return tuple(_problem(path, place, line) for place, line in lines if line.strip())


def _problem(path: str, place: int, line: str) -> Problem:
    where = f"gsm8k: line {place} of {shown(path)}"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError, MemoryError):
        raise InputError(f"{where} is no JSON; allowed is one object a line") from None
    for field in ("question", "answer"):
        if not isinstance(row, dict) or not isinstance(row.get(field), str):
            raise InputError(f"{where} has no text {field!r}; each line has 'question' and 'answer'")
    number = number_of(row["answer"], flexible=False)
    if number is None:
        raise InputError(f"{where} has no number after {MARK!r} in its answer")
    return Problem(row["question"], row["answer"], number)
