"""Perplexity of a whole text in windows with a stride, as papers report it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pith.core import InputError, PithWarning, param
from pith.models import Subject, require_positions
from pith.tasks.base import Calibration, Progress, Quality, Task
from pith.tasks.early import show
from pith.tasks.interval import t_interval
from pith.tasks.stream import Stream, not_finite
from pith.tasks.text import beginning, tokens_of
from pith.tasks.windows import guessed, loss, text_at

LOGITS = 2**27
"""The most logits that are held at once; fewer windows are read together where they would be more."""

STRETCHES = 8
"""Into how many stretches the scored tokens are cut at least."""

Window = tuple[int, int, int]
"""Where a window begins in the text, where its scored tokens begin, and where it ends."""


@dataclass(frozen=True, kw_only=True)
class SlidingPerplexity(Task):
    """Perplexity of a whole text as papers report it, such as WikiText-2's: each token is scored once.

        perplexity = exp(mean_i -log p(x_i | x_{b(i)}, ..., x_{i - 1}))

    b(i) is the beginning of the first window that holds token i. Windows of `length` tokens begin every `stride`
    tokens, and of each one only the tokens that no earlier window held are scored. Without `stride`, windows do not
    overlap, and the first token of each is not scored. Papers on Llama use length=2048 and no stride.

    The text is encoded as a whole, with what begins a sequence once before it. In each window the tokens that an
    earlier window held are read as one prompt, after which methods act; the scored ones follow in one forward, or
    `chunk` at a time. Without overlap and without `chunk` a window is one forward, in which no method makes a cache
    smaller before a token is scored: only changed weights and attention patterns show.

    The examples are equal stretches of the scored tokens, of about `length` tokens and at least eight; the interval is
    Student's over their means, in logarithms.
    """

    metric: ClassVar[str] = "perplexity"
    higher_is_better: ClassVar[bool] = False
    logarithmic: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    text: str | None = param(
        None, "path of a text file; none is Pith's prose, for the built-in model Python's reference", file=True
    )
    length: int = param(1024, "tokens of a window", ge=2)
    stride: int | None = param(None, "tokens from one window's beginning to the next; none is length, no overlap", ge=1)
    chunk: int | None = param(None, "scored tokens read at once; none is all of a window, as in papers", ge=1)
    count: int | None = param(None, "windows, from the text's beginning; none is the whole text", ge=1)

    def check_length(self, model: Any) -> None:
        """Raise an error if a window is longer than the model's positions.

        Raises:
            InputError: it is.
        """
        require_positions(model, self.length, f"{self.name}: length={self.length}")

    def run(self, subject: Subject, batch_size: int = 8, progress: Progress | None = None) -> Quality:
        """Measure the subject; `scores` are the mean negative log-likelihoods of the stretches, in nats.

        Raises:
            InputError: the file cannot be read, the text is too short, or `stride` or `length` too long.
            ModelError: the model keeps no cache of what it has read, or its logits are not finite.
        """
        self.check_length(subject.model)
        tokens = torch.tensor(self.tokens(subject.tokenizer))
        windows, losses, read = self.windows(len(tokens)), [], 0
        with subject.applied() as model:
            for batch in self._batches(windows, batch_size, len(subject.tokenizer)):
                rows = torch.stack([tokens[begin:end] for begin, _, end in batch]).to(model.device)
                losses.append(self._losses(model, rows, batch[0][1] - batch[0][0]).flatten().double().cpu())
                read += len(batch)
                show(progress, read, len(windows), lambda: self._quality(torch.cat(losses)))
                if progress:
                    progress(read, len(windows))
        return self._quality(torch.cat(losses))

    def calibrate(self, tokenizer: Any) -> Calibration:
        """Return the score of a guesser who knows how often each token stands in the text, and nothing of what came
        before; a whole text that takes long is warned of.
        """
        tokens = self.tokens(tokenizer)
        windows = self.windows(len(tokens))
        scored = [token for _, first, end in windows for token in tokens[first:end]]
        read = sum(end - begin for begin, _, end in windows)
        if self.count is None:
            warnings.warn(
                f"{self.name} reads the whole text for each recipe: {read} tokens in {len(windows)} windows, of which "
                f"{len(scored)} are scored; --count N reads the first N windows only",
                PithWarning,
                stacklevel=2,
            )
        losses = guessed(
            tokens_of(tokenizer, text_at(self.text, self.name, tokenizer)), torch.tensor([scored]), len(tokenizer)
        )
        return Calibration(1.0, self._quality(losses[0]).value)

    def tokens(self, tokenizer: Any) -> tuple[int, ...]:
        """Return the text's tokens, behind those that begin a sequence.

        Raises:
            InputError: the file cannot be read.
        """
        return (*beginning(tokenizer), *tokens_of(tokenizer, text_at(self.text, self.name, tokenizer)))

    def windows(self, tokens: int) -> list[Window]:
        """Return the windows of a text of so many tokens.

        Raises:
            InputError: `stride` is longer than a window, or there are fewer than two tokens to score.
        """
        step = self.length if self.stride is None else self.stride
        if step > self.length:
            raise InputError(f"{self.name}: stride={step} leaves out tokens; allowed are at most length={self.length}")
        found: list[Window] = []
        scored = 1  # nothing stands before the first token
        for begin in range(0, tokens, step):
            end = min(begin + self.length, tokens)
            first = max(scored, begin + 1)
            if first < end:
                found.append((begin, first, end))
            scored = end
            if end == tokens or len(found) == self.count:
                break
        if sum(end - first for _, first, end in found) < 2:
            raise InputError(f"{self.name}: a text of {tokens} tokens is too short; allowed are 3 or more")
        return found

    def _batches(self, windows: list[Window], batch_size: int, words: int) -> Iterator[list[Window]]:
        """Give windows that are read together: of one shape, and with no more logits at once than memory holds."""
        for (_, scored), group in groupby(windows, key=lambda one: (one[2] - one[0], one[2] - one[1])):
            alike = list(group)
            at_once = scored if self.chunk is None else min(self.chunk, scored)
            size = max(1, min(batch_size, LOGITS // (at_once * words)))
            yield from (alike[start : start + size] for start in range(0, len(alike), size))

    def _losses(self, model: Any, rows: Int[Tensor, "batch tokens"], context: int) -> Float[Tensor, "batch scored"]:
        """Return the negative log-likelihood of every token behind the context."""
        stream, size = Stream(model), rows.shape[1]
        chunk = self.chunk or size
        start, losses = 0, []
        if context > 1:
            losses.append(loss(stream.read(rows[:, :context])[:, None], rows[:, context : context + 1]))
            start = context
        for begin in range(start, size - 1, chunk):
            end = min(begin + chunk, size - 1)
            losses.append(loss(stream.read_each(rows[:, begin:end]), rows[:, begin + 1 : end + 1]))
        found = torch.cat(losses, dim=1)
        if bool(found.isnan().any()):
            raise not_finite(model)
        return found

    def _quality(self, losses: Float[Tensor, " scored"]) -> Quality:
        """Return the score of every scored token's loss, in the text's order."""
        count = min(len(losses), max(STRETCHES, len(losses) // self.length))
        # stretches differ by one token at most; their sums over one mean length have the tokens' mean as their mean
        sums = torch.stack([part.sum() for part in losses.tensor_split(count)])
        scores = (sums / (len(losses) / count)).tolist()
        value, low, high = torch.tensor([float(losses.mean()), *t_interval(scores)]).double().exp().tolist()
        return Quality(value, low, high, count, tuple(scores))
