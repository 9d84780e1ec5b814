"""Inheritune: a small model begins as the first blocks of a large one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pith.core import ModelError, Paper, param
from pith.weights import Calibration, Pruner, blocks, keep_blocks
from pith.weights.passes import count_of
from pith.weights.size import weight_bytes


@dataclass(frozen=True, kw_only=True)
class Inheritune(Pruner):
    """Keep the embeddings, the first blocks, the last norm and the head; nothing is read.

        small = head(norm(block_n(... block_1(embed(x)))))           n = keep * blocks       (section 3, step 1)

    It is what the paper trains from, and no compression by itself: before training, the model is the large one asked
    for its answer after n blocks, which it never learned to give.

    Deviates: the training that follows in the paper, and growing by the next blocks until the large model's loss is
    reached, are not done here; a larger `keep` gives the grown model's beginning.
    """

    paper: ClassVar[Paper] = Paper(
        "2404.08634",
        "Inheritune: Pre-training Small Base LMs with Fewer Tokens",
        "Sunny Sanyal, Ravid Shwartz-Ziv, Alexandros G. Dimakis, Sujay Sanghavi",
        2024,
        "sanyalsunny111/LLM-Inheritune",
    )
    calibrated: ClassVar[bool] = False
    reads_weights: ClassVar[bool] = False

    keep: int | float = param(
        0.5, "first blocks that are kept: a whole number, or a share of all", ge=0, sweep=(0.25, 0.9)
    )

    def change(self, model: Any, calibration: Calibration) -> None:
        """Removes the blocks behind."""
        calibration.told(0, 1)
        keep_blocks(model, range(self._count(model)))
        calibration.told(1, 1)

    def predicted_bytes(self, model: Any) -> int | None:
        """What is left."""
        return weight_bytes(model) - sum(weight_bytes(block) for block in blocks(model)[self._count(model) :])

    def _count(self, model: Any) -> int:
        count = len(blocks(model))
        keep = count_of(self, "keep", self.keep, count)
        if not 1 <= keep <= count:
            raise ModelError(f"{self}: {keep} of {count} blocks cannot be kept; allowed are 1 to {count}")
        return keep
