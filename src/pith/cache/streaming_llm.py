"""StreamingLLM: attention sinks and a rolling window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from pith.attention import Eviction, Step
from pith.core import Paper, param


@dataclass(frozen=True, kw_only=True)
class StreamingLLM(Eviction):
    """Keep the first tokens, on which attention rests when it has nothing to look for, and the most recent ones.

        kept = [0, start_size) and the last (budget - start_size)                       (section 3.2, figure 4)
        query and keys are rotated at their index in the cache, 0, 1, ..., n - 1, not at their place in the text

    It evicts after every forward, so a stream of any length runs in constant memory, at positions that the model was
    trained on. It is no long-term memory: what left the window is lost.

    Deviates: the authors rotate every cached key at each step; here the window's keys stay as the model rotated them
    and the sinks are placed directly before the window, which gives every query the same distances. As in the authors'
    code the token that is read comes on top of the budget while it is attended to, and a first prompt that is longer
    than the budget is attended to whole before it is trimmed.
    """

    paper: ClassVar[Paper] = Paper(
        "2309.17453",
        "Efficient Streaming Language Models with Attention Sinks",
        "Guangxuan Xiao, Yuandong Tian, Beidi Chen, Song Han, Mike Lewis",
        2023,
        "mit-han-lab/streaming-llm",
    )
    every_step: ClassVar[bool] = True
    renumbers: ClassVar[bool] = True

    start_size: int = param(4, "first tokens that are always kept, the attention sinks; part of the budget", ge=0)

    def score(self, step: Step) -> Float[Tensor, "batch 1 key"]:
        """The later, the better; the sinks above all."""
        return step.protect(step.positions[:, :1].float(), first=self.start_size)
