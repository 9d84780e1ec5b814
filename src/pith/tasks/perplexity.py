"""Perplexity of a text that follows a long context."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pith.tasks.base import Quality
from pith.tasks.interval import t_interval
from pith.tasks.windows import Windows


@dataclass(frozen=True, kw_only=True)
class Perplexity(Windows):
    """How many tokens the model hesitates between, on average, where it goes on with a text after a long context.

        perplexity = exp(mean_{window, i < scored} -log p(x_{length + i} | x_{< length + i}))

    The text is cut into `count` equal parts; in each, one window begins at a random place. Its first `length` tokens
    are read as one prompt, which is when most methods act; the others are read `chunk` at a time, one by one unless
    told otherwise, so that methods which act at every step do. Only those are scored. The interval is Student's over
    the windows' means, in logarithms. The curve is the mean loss along the scored tokens.
    """

    metric: ClassVar[str] = "perplexity"
    logarithmic: ClassVar[bool] = True
    oracle: ClassVar[float] = 1.0

    def quality(self, losses: Float[Tensor, "count scored"], tokenizer: Any) -> Quality:
        """`scores` are the windows' mean negative log-likelihoods, in nats; so is the curve, over all windows, by the
        number of tokens that stand before each stretch.
        """
        scores = losses.mean(dim=1).tolist()
        mean, (low, high) = losses.mean(), t_interval(scores)
        value, low, high = torch.tensor([mean, low, high]).double().exp().tolist()
        curve = tuple((self.length + a, float(losses[:, a:b].mean())) for a, b in pairwise(self.edges()))
        return Quality(value, low, high, len(scores), tuple(scores), curve=curve)
