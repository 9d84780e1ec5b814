"""Perplexity of a text that follows a long context."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pith.core import InputError, param
from pith.models import Subject, require_positions
from pith.tasks.base import Calibration, Progress, Quality, Task
from pith.tasks.heldout import heldout_text
from pith.tasks.interval import t_interval
from pith.tasks.stream import Stream
from pith.tasks.text import beginning, tokens_of


@dataclass(frozen=True, kw_only=True)
class Perplexity(Task):
    """How many tokens the model hesitates between, on average, where it goes on with a text after a long context.

        perplexity = exp(mean_{window, i < scored} -log p(x_{length + i} | x_{< length + i}))

    The text is cut into `count` equal parts; in each, one window begins at a random place. Its first `length` tokens
    are read as one prompt, which is when most methods act; the others are read one at a time, so that methods which
    act at every step do. Only those are scored. The interval is Student's over the windows' means, in logarithms.
    """

    metric: ClassVar[str] = "perplexity"
    higher_is_better: ClassVar[bool] = False
    logarithmic: ClassVar[bool] = True

    text: str | None = param(None, "path of a text file; none is Python's language reference, which is held out")
    length: int = param(1024, "tokens of the context, the one that begins a sequence included", ge=2)
    scored: int = param(128, "tokens after the context that are scored", ge=1)
    count: int = param(16, "windows", ge=2)
    seed: int = param(0, "of the places where the windows begin", ge=0)

    def run(self, subject: Subject, batch_size: int = 8, progress: Progress | None = None) -> Quality:
        """Measures the subject; `scores` are the windows' mean negative log-likelihoods, in nats.

        Raises:
            InputError: the file cannot be read, or the text is too short or the windows too long.
        """
        require_positions(subject.model, self.length + self.scored, f"{self.name}: length + scored")
        windows = self.windows(subject.tokenizer)
        scores: list[float] = []
        with subject.applied() as model:
            for start in range(0, self.count, batch_size):
                batch = windows[start : start + batch_size].to(model.device)
                scores += self._losses(model, batch).tolist()
                if progress:
                    progress(len(scores), self.count)
        mean, (low, high) = torch.tensor(scores).double().mean(), t_interval(scores)
        value, low, high = torch.tensor([mean, low, high]).double().exp().tolist()
        return Quality(value, low, high, self.count, tuple(scores))

    def calibrate(self, tokenizer: Any) -> Calibration:
        """A guesser takes every token of the vocabulary for equally likely."""
        return Calibration(1.0, float(len(tokenizer)))

    def windows(self, tokenizer: Any) -> Int[Tensor, "count tokens"]:
        """The windows, context and scored tokens; each begins as the tokenizer begins a sequence.

        Raises:
            InputError: the file cannot be read, or the text is too short for so many windows.
        """
        begin, tokens = beginning(tokenizer), tokens_of(tokenizer, self._read())
        size, part = self.length + self.scored - len(begin), len(tokens) // self.count
        if part < size:
            raise InputError(
                f"{self.name}: count={self.count} windows of {size} tokens do not fit into a text of {len(tokens)}; "
                f"allowed are at most {len(tokens) // size}"
            )
        rng = Random(self.seed)
        starts = [index * part + rng.randrange(part - size + 1) for index in range(self.count)]
        return torch.tensor([begin + tokens[start : start + size] for start in starts])

    def _read(self) -> str:
        if self.text is None:
            return heldout_text()
        try:
            return Path(self.text).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self.name}: text={self.text!r} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"{self.name}: text={self.text!r} is no text in UTF-8") from None

    def _losses(self, model: Any, windows: Int[Tensor, "batch tokens"]) -> Float[Tensor, " batch"]:
        """Each window's mean negative log-likelihood, in float64."""
        stream, targets = Stream(model), windows[:, self.length :]
        logits, losses = stream.read(windows[:, : self.length]), []
        for index in range(self.scored):
            losses.append(F.cross_entropy(logits.float(), targets[:, index], reduction="none"))
            if index + 1 < self.scored:
                logits = stream.read(targets[:, index : index + 1])
        return torch.stack(losses).double().mean(dim=0)
