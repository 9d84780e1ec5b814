"""SLEB: blocks go one after another, each time the one that is missed least."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from pith.core import ModelError, Paper, param
from pith.weights import Calibration, Pruner, blocks, keep_blocks
from pith.weights.passes import count_of, negative_log_likelihood, passed_by, unread, watched
from pith.weights.size import weight_bytes


@dataclass(frozen=True, kw_only=True)
class SLEB(Pruner):
    """Remove whole blocks, one after another: each time the one without which the texts are most likely.

        remove argmin_j -sum_{text, t} log p(x_t | x_<t; the blocks that are left without j), again and again
                                                                                  (section 3.3, metric 3; algorithm 1)

    Blocks are scored anew after each removal. The first and the last blocks of those that are left stay. The result is
    a plain model with fewer blocks. Packed layers may be in it.

    Cost: for m blocks that are left about m^2 / 2 block forwards of the calibration a round.

    Deviates: the states that a block reads are computed once a round for all candidates behind it, which gives the same
    numbers as running each candidate from the start. Losses are added up in float64, several sequences at once. A
    share of blocks is rounded up, as the paper's 7 of 32 for 20 %.
    """

    paper: ClassVar[Paper] = Paper(
        "2402.09025",
        "SLEB: Streamlining LLMs through Redundancy Verification and Elimination of Transformer Blocks",
        "Jiwon Song, Kyungseok Oh, Taesu Kim, Hyungjun Kim, Yulhwa Kim, Jae-Joon Kim",
        2024,
        "jiwonsong-dev/SLEB",
    )
    reads_weights: ClassVar[bool] = False

    drop: int | float = param(0.2, "blocks that are removed: a whole number, or a share of all", ge=0, sweep=(0.5, 0.1))
    early: int = param(1, "first blocks that stay", ge=0)
    late: int = param(1, "last blocks that stay", ge=0)

    def change(self, model: Any, calibration: Calibration) -> None:
        """Searches with blocks passed by, and removes them at the end."""
        count = len(blocks(model))
        drop = self._count(model)
        alive = list(range(count))
        for step in range(drop):
            losses = self._losses(model, alive, calibration, step)
            del alive[min(losses, key=lambda seat: (losses[seat], seat))]
        keep_blocks(model, alive)

    def predicted_bytes(self, model: Any) -> int | None:
        """Known where all blocks are of one size."""
        sizes = {weight_bytes(block) for block in blocks(model)}
        return weight_bytes(model) - self._count(model) * sizes.pop() if len(sizes) == 1 else None

    def _count(self, model: Any) -> int:
        count = len(blocks(model))
        drop, most = count_of(self, "drop", self.drop, count), max(count - self.early - self.late, 0)
        if drop > most:
            raise ModelError(
                f"{self}: {drop} of {count} blocks cannot be removed while the first {self.early} and the last "
                f"{self.late} stay; allowed are at most {most}"
            )
        return drop

    def _losses(self, model: Any, alive: list[int], calibration: Calibration, step: int) -> dict[int, float]:
        """The loss without each block that may go, by its place among those that are left."""
        layers = list(blocks(model))
        left = [layers[index] for index in alive]
        gone = [layer for index, layer in enumerate(layers) if index not in alive]
        seats = range(self.early, len(alive) - self.late)
        losses = torch.zeros(len(alive), dtype=torch.float64)
        for tokens in unread(calibration, {"losses": losses}, f"round-{step}"):
            read: dict[int, Tensor] = {}
            with passed_by(gone), watched({left[seat]: partial(read.__setitem__, seat) for seat in seats}):
                model(input_ids=tokens.to(model.device), use_cache=False)
            for seat in seats:
                # the blocks before the candidate are passed by too, since it hands on what they gave
                with passed_by(gone), passed_by(left[: seat + 1], read.pop(seat)):
                    losses[seat] += negative_log_likelihood(model, tokens)
        return {seat: float(losses[seat]) for seat in seats}
