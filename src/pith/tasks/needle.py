"""Retrieval of one of several facts that are hidden in a long text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, ClassVar

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from pith.core import InputError, param
from pith.models import Subject, require_positions
from pith.tasks import generate
from pith.tasks.base import Calibration, Progress, Quality, Task
from pith.tasks.heldout import heldout_text
from pith.tasks.interval import wilson_interval


@dataclass(frozen=True, kw_only=True)
class Needle(Task):
    """How often the model finds a fact: the share of questions that greedy decoding answers exactly.

    Facts such as " apple is 4821." stand at random places of Python's language reference; the prompt ends in a
    question for one of them. Example `i` depends on the seed and `i` only, and fills `length` tokens with its answer.
    The interval is Wilson's.
    """

    metric: ClassVar[str] = "share of exact answers"

    length: int = param(1024, "tokens of context, question and answer together", ge=1)
    depth: float | None = param(
        None, "where the fact stands: 0 is the beginning, 1 the end; none is anywhere", ge=0, le=1
    )
    keys: int = param(4, "facts, of which one is asked for", ge=1, le=100)
    count: int = param(50, "questions", ge=1)
    seed: int = param(0, "of the facts and their places", ge=0)

    def run(self, subject: Subject, batch_size: int = 8, progress: Progress | None = None) -> Quality:
        """Measures the subject; `scores` are 1 for an exact answer and 0 for any other.

        Raises:
            InputError: the length is past the model's positions or its facts do not fit into it.
        """
        require_positions(subject.model, self.length, f"{self.name}: length={self.length}")
        examples = self.examples(subject.tokenizer)
        scores: list[float] = []
        with subject.applied() as model:
            for start in range(0, self.count, batch_size):
                scores += _answer(model, subject.tokenizer, examples[start : start + batch_size])
                if progress:
                    progress(len(scores), self.count)
        low, high = wilson_interval(round(sum(scores)), self.count)
        return Quality(sum(scores) / self.count, low, high, self.count, tuple(scores))

    def calibrate(self, tokenizer: Any) -> Calibration:
        """A guesser names one of the values that stand in the context."""
        return Calibration(1.0, 1 / self.keys)

    def examples(self, tokenizer: Any) -> tuple[generate.Example, ...]:
        """The questions, the same for every model that shares the tokenizer.

        Raises:
            InputError: the facts do not fit into the length, or the reference does not fill it.
        """
        return _examples(self, tokenizer)


@lru_cache(maxsize=8)  # a comparison asks many recipes the same questions, and making them costs seconds
def _examples(task: Needle, tokenizer: Any) -> tuple[generate.Example, ...]:
    text = heldout_text()

    def count_tokens(piece: str) -> int:
        return len(tokenizer(piece, verbose=False).input_ids)

    def draw(index: int) -> generate.Example:
        rng = Random(f"{task.seed} {index}")
        depth = rng.random() if task.depth is None else task.depth
        try:
            return generate.needle(rng, text, count_tokens, task.length, depth, task.keys)
        except ValueError as error:
            raise InputError(f"{task.name}: length={task.length} is too short: {error}") from None

    examples = tuple(map(draw, range(task.count)))
    longest = max(count_tokens(e.context + e.question + e.answer) for e in examples)
    if longest < 0.95 * task.length:  # the generator wraps round the reference once
        raise InputError(f"{task.name}: length={task.length} is not filled; allowed is at most {longest}")
    return examples


@torch.no_grad()
def _answer(model: Any, tokenizer: Any, examples: Sequence[generate.Example]) -> list[float]:
    """1 for each example that greedy decoding answers exactly, 0 for any other."""
    prompts = [tokenizer(e.context + e.question, verbose=False).input_ids for e in examples]
    wholes = [tokenizer(e.context + e.question + e.answer, verbose=False).input_ids for e in examples]
    sizes = [len(whole) - len(prompt) for whole, prompt in zip(wholes, prompts, strict=True)]
    pad = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    rows = [torch.tensor(prompt) for prompt in prompts]
    ids = pad_sequence(rows, batch_first=True, padding_value=pad, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    # what a checkpoint's own settings would change is said here: sampling, beams, penalties
    greedy = GenerationConfig(
        max_new_tokens=max(sizes),
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        pad_token_id=pad,
        use_cache=True,
    )
    out = model.generate(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), generation_config=greedy)
    given = out[:, ids.shape[1] :].tolist()
    # as text: a tokenizer may cut the same answer in another way
    texts = [tokenizer.decode(row[:size]) for row, size in zip(given, sizes, strict=True)]
    return [float(text.strip() == e.answer.strip()) for text, e in zip(texts, examples, strict=True)]
