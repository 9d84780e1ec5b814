"""Windows of a text: a context, and the tokens after it whose losses are looked at."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pith.core import InputError, param, read_text
from pith.models import Subject, require_positions
from pith.tasks.base import BatchedTask, Calibration, Progress, Quality
from pith.tasks.early import show
from pith.tasks.heldout import heldout_text
from pith.tasks.stream import Stream, not_finite
from pith.tasks.text import beginning, tokens_of
from pith.texts import held_out_prose, language_of

PLAIN = 32
"""Scored tokens that a model reads at once where no recipe acts in its cache."""


@dataclass(frozen=True, kw_only=True)
class Windows(BatchedTask):
    """A task that reads windows of a text and makes a score of the losses of what follows each context.

    The text is cut into `count` equal parts; in each, one window begins at a random place. Its first `length` tokens
    are read as one prompt, the others `chunk` at a time: one by one, as when decoding, so that methods which act at
    every step do, or several, each chunk a prompt of its own. A model in whose cache nothing acts reads at least 32 at
    a time, which gives it the same losses sooner. A small `length` with a large `scored` shows by its curve
    whether quality falls with distance.

    Class attributes:
        oracle: the score of one who knows every token.
    """

    oracle: ClassVar[float]
    higher_is_better: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    text: str | None = param(
        None, "path of a text file; none is Pith's prose, for the built-in model Python's reference", file=True
    )
    length: int = param(1024, "tokens of the context, the one that begins a sequence included", ge=2)
    scored: int = param(64, "tokens after the context that are scored", ge=1)
    chunk: int = param(1, "scored tokens that are read at once; with 1 as when decoding, with more as a prompt", ge=1)
    bins: int = param(8, "equal stretches of the scored tokens, each a point of the curve", ge=1)
    count: int = param(16, "windows", ge=2)
    seed: int = param(0, "of the places where the windows begin", ge=0)

    @abstractmethod
    def quality(self, losses: Float[Tensor, "count scored"], tokenizer: Any) -> Quality:
        """The score of negative log-likelihoods, in nats, of every scored token of the first windows, or of all."""

    def check_length(self, model: Any) -> None:
        """Raise an error if a window is longer than the model's positions.

        Raises:
            InputError: it is.
        """
        require_positions(model, self.length + self.scored, f"{self.name}: length + scored")

    def batches(
        self, subject: Subject, batch_size: int = 8, progress: Progress | None = None
    ) -> Generator[None, None, Quality]:
        """See the contract; see `quality` for what `scores` and `curve` are.

        Raises:
            InputError: the file cannot be read, or the text is too short or the windows too long.
            ModelError: the model keeps no cache of what it has read, or its logits are not finite.
        """
        self.check_length(subject.model)
        windows, losses = self.windows(subject.tokenizer), []
        for start in range(0, self.count, batch_size):
            with subject.applied() as model:
                batch = windows[start : start + batch_size].to(model.device)
                chunk = self.chunk if subject.recipe is not None else max(self.chunk, PLAIN)
                losses.append(self._losses(model, batch, chunk).double().cpu())
            done = min(start + batch_size, self.count)
            show(progress, done, self.count, lambda: self.quality(torch.cat(losses), subject.tokenizer))
            if progress:
                progress(done, self.count)
            yield
        return self.quality(torch.cat(losses), subject.tokenizer)

    def calibrate(self, tokenizer: Any) -> Calibration:
        """A guesser knows how often each token stands in the text, and nothing of what came before: of every token one
        more is counted than there are.
        """
        tokens = tokens_of(tokenizer, self._read(tokenizer))
        losses = guessed(tokens, self.windows(tokenizer)[:, self.length :], len(tokenizer))
        return Calibration(self.oracle, self.quality(losses, tokenizer).value)

    def windows(self, tokenizer: Any) -> Int[Tensor, "count tokens"]:
        """The windows, context and scored tokens; each begins as the tokenizer begins a sequence.

        Raises:
            InputError: the file cannot be read, or the text is too short for so many windows.
        """
        begin, tokens = beginning(tokenizer), tokens_of(tokenizer, self._read(tokenizer))
        size = self.length + self.scored - len(begin)
        return torch.tensor([begin + tokens[start : start + size] for start in self._starts(tokenizer)])

    def edges(self) -> list[int]:
        """Where the curve's stretches begin, in scored tokens, and where the last one ends."""
        bins = min(self.bins, self.scored)
        return [index * self.scored // bins for index in range(bins + 1)]

    def stretches(self, tokenizer: Any, around: int) -> list[tuple[tuple[int, ...], int]]:
        """Of each window its scored tokens, with the text's next `around` tokens on both sides, and how many of these
        stand before.
        """
        tokens, found = tokens_of(tokenizer, self._read(tokenizer)), []
        for start in self._starts(tokenizer):
            first = start + self.length - len(beginning(tokenizer))
            before = min(around, first)
            found.append((tokens[first - before : first + self.scored + around], before))
        return found

    def _starts(self, tokenizer: Any) -> list[int]:
        tokens = len(tokens_of(tokenizer, self._read(tokenizer)))
        begin = len(beginning(tokenizer))
        if begin >= self.length:
            raise InputError(
                f"{self.name}: length={self.length} is too short; allowed is more than the {begin} tokens "
                "with which the tokenizer begins a sequence"
            )
        size, part = self.length + self.scored - begin, tokens // self.count
        if part < size:
            fit = tokens // size
            allowed = f"are at most {fit}" if fit > 1 else "is a longer text, or shorter windows"
            raise InputError(
                f"{self.name}: count={self.count} windows of {size} tokens do not fit into a text of {tokens}; "
                f"allowed {allowed}"
            )
        rng = Random(self.seed)
        return [index * part + rng.randrange(part - size + 1) for index in range(self.count)]

    def _read(self, tokenizer: Any) -> str:
        return text_at(self.text, self.name, tokenizer)

    def _losses(self, model: Any, windows: Int[Tensor, "batch tokens"], chunk: int) -> Float[Tensor, "batch scored"]:
        """The negative log-likelihood of every scored token, of which `chunk` are read at once."""
        stream, targets = Stream(model), windows[:, self.length :]
        losses = [loss(stream.read(windows[:, : self.length])[:, None], targets[:, :1])]
        for start in range(0, self.scored - 1, chunk):
            end = min(start + chunk, self.scored - 1)
            losses.append(loss(stream.read_each(targets[:, start:end]), targets[:, start + 1 : end + 1]))
        found = torch.cat(losses, dim=1)
        if bool(found.isnan().any()):
            raise not_finite(model)
        return found


def text_at(path: str | None, task: str, tokenizer: Any) -> str:
    """Return the text of a file that a task's parameter `text` names; where it is None, a text that fits the model.

    That is Python's language reference for the built-in model, which was trained on Python's library, and held-out
    prose for any other.

    Raises:
        InputError: the file cannot be read.
    """
    if path is not None:
        return read_text(path, label=f"{task}: text=")
    return heldout_text() if language_of(tokenizer) == "pith" else held_out_prose()


def guessed(tokens: Sequence[int], scored: Int[Tensor, "count scored"], words: int) -> Float[Tensor, "count scored"]:
    """Return the losses, in nats, of a guesser that knows how often each token stands in a text, and nothing else.

    Args:
        tokens: of the text; of every token one more is counted than there are.
        scored: those that are guessed.
        words: how many the tokenizer knows.
    """
    counts = Counter(tokens)
    seen = torch.tensor([[counts[token] for token in row] for row in scored.tolist()]).double()
    return -((seen + 1) / (len(tokens) + words)).log()


def loss(
    logits: Float[Tensor, "batch new vocabulary"], targets: Int[Tensor, "batch new"]
) -> Float[Tensor, "batch new"]:
    """Return each target's negative log-likelihood, in nats, as the loss of Transformers computes it.

    The vocabulary must be the last dimension: over any other one PyTorch adds the exponentials one after another, which
    in float32 loses 1e-4 nats at 50,000 words.
    """
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return losses.view(targets.shape)
