"""LagKV: pairs that stand out from the tokens that come next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pith.attention import Retention, Seat, Step
from pith.core import DenseCache, Paper, param


@dataclass(frozen=True, kw_only=True)
class LagKV(Retention):
    """Of each run of `lag_size` tokens, keep those whose keys and values lie furthest from the range of the next run.

        z     = (x - min x') / (max x' - min x')      each channel, of keys and values; x in a run, x' in the next
        s(x)  = softmax_{tokens of the run} std_{channels}(z)
        score = s(k) + score_v_ratio * s(v)
        kept  = the first sink_size, int(ratio * lag_size) of each run, the last whole run and what follows it

    No query is asked. A run is gone through once, when the next one is whole: while decoding every `lag_size` tokens,
    so the cache grows by `ratio` of a text of any length. Nothing is dropped below sink_size + 2 * lag_size tokens.

    Deviates: a channel that is constant over a whole run says nothing, and counts as z = 0; in the authors' code it
    makes the run's scores NaN. Padding belongs to no run; they read it as tokens. They can leave layers out
    (skip_layer_idx); here all take part.
    """

    contract: ClassVar[str] = "eviction"
    paper: ClassVar[Paper] = Paper(
        "2504.04704",
        "LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens Are Important",
        "Manlai Liang, Jiaming Zhang, Xiong Li, Jinlong Li",
        2025,
        "AI-Lab-China-Merchants-Bank/LagKV",
    )
    every_step: ClassVar[bool] = True
    moves: ClassVar[bool] = True

    ratio: float = param(0.5, "share of each run that is kept", ge=0.0, le=1.0, sweep=(0.0, 1.0))
    sink_size: int = param(16, "first tokens that are always kept", ge=0)
    lag_size: int = param(1024, "tokens of a run", ge=1, le=2**20, sweep=(32, 64, 128, 256, 512, 1024))
    score_v_ratio: float = param(1.0, "weight of the values' score beside the keys'", ge=0.0)

    @property
    def kept(self) -> int:
        """How many tokens of a run are kept."""
        return int(self.ratio * self.lag_size)

    @property
    def keeps_all(self) -> bool:
        """Whether whole runs are kept."""
        return self.kept == self.lag_size

    def limit(self, real: Int[Tensor, " batch"], seat: Seat) -> Int[Tensor, " batch"]:
        """All, less what each run gives up that is followed by a whole one."""
        runs = ((real - self.sink_size) // self.lag_size - 1).clamp(min=0)
        return real - runs * (self.lag_size - self.kept)

    def claimed(self, dense: DenseCache) -> float:
        """The limit as a share of the dense cache."""
        return int(self.limit(torch.tensor([dense.tokens]), Seat(0, 1, dense.token_bytes))[0]) / max(dense.tokens, 1)

    def score(self, step: Step) -> Float[Tensor, "batch kv_head key"]:
        """-1 for those that their run gives up; what is in no run, or was gone through before, stays."""
        size, whole = self.lag_size, self.whole_runs(step)
        first = whole.nonzero()  # (row, head, slot) of the first tokens; runs of a head stand one after the other
        slots = first[:, 2:] + torch.arange(size, device=first.device)
        followed = ((first[1:, :2] == first[:-1, :2]).all(dim=-1) & (first[1:, 2] - first[:-1, 2] == size)).nonzero()
        run, scores = followed[:, 0], torch.zeros(whole.shape, device=whole.device)
        if not len(run):
            return scores
        row, head = (rearrange(x, "run -> run 1") for x in (first[:, 0], first[:, 1]))
        score = stands_out(step.keys[row, head, slots], run)
        score = score + self.score_v_ratio * stands_out(step.values[row, head, slots], run)
        gone = score.argsort(dim=-1, stable=True)[:, : size - self.kept]
        scores[row[run], head[run], slots[run].gather(1, gone)] = -1.0
        return scores

    def whole_runs(self, step: Step) -> Bool[Tensor, "batch kv_head key"]:
        """The first tokens of the runs of which nothing was dropped yet."""
        positions = step.positions.expand(-1, step.kv_head, -1)
        begins = (positions >= self.sink_size) & ((positions - self.sink_size) % self.lag_size == 0)
        steps = F.pad((positions.diff(dim=-1) == 1).cumsum(dim=-1), (1, 0))  # of one, up to each slot
        ends = self.lag_size - 1  # slots from the first to the last token
        without_a_gap = steps[..., ends:] - steps[..., : max(step.stored - ends, 0)] == ends
        return begins & F.pad(without_a_gap, (0, step.stored - without_a_gap.shape[-1]))


def stands_out(x: Float[Tensor, "run token channel"], runs: Int[Tensor, " scored"]) -> Float[Tensor, "scored token"]:
    """s of these runs, each against the one after it."""
    x = x.float()
    low, high = x.amin(dim=1, keepdim=True)[runs + 1], x.amax(dim=1, keepdim=True)[runs + 1]
    z = (x[runs] - low) / (high - low)
    return z.masked_fill(high == low, 0.0).std(dim=-1).softmax(dim=-1)
