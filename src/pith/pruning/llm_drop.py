"""LLM-Drop: attention, MLPs or blocks that hardly turn the hidden states go, all at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pith.core import ModelError, Paper, param
from pith.weights import Calibration, Part, Pruner, blocks, drop_part, keep_blocks
from pith.weights.passes import States, Watcher, count_of, unread, watched
from pith.weights.size import weight_bytes
from pith.weights.structure import is_dropped, part_names

_BETWEEN = {"block": ("in", "out"), "attention": ("in", "between"), "mlp": ("between", "out")}
"""Where the states lie that a part turns: what its block reads, what lies between attention and MLP, what it gives."""

Whole = Literal["attention", "mlp", "block", "joint"]


@dataclass(frozen=True, kw_only=True)
class LLMDrop(Pruner):
    """Drop the attention, MLPs or blocks whose output points where their input did, with the norms before them.

        S = 1 - mean_t cos(x_t, y_t),   y = x + F(norm(x))                                       (equations 1 to 4)

    The parts with the smallest S go, all at once; jointly, attention and MLPs stand in one ranking. A dropped attention
    keeps no keys and values. Without blocks the result is a plain model; without parts it is one that only Pith loads.

    Deviates: of two parts with equal S the first goes. With norms behind the parts, as in Gemma, an MLP's input is what
    its own norm reads; the authors' code takes the attention's output norm for it. Dropping consecutive blocks, and
    scoring again after each drop, which the authors also try, are not there.
    """

    name: ClassVar[str] = "llm_drop"
    paper: ClassVar[Paper] = Paper(
        "2406.15786",
        "What Matters in Transformers? Not All Attention is Needed",
        "Shwai He, Guoheng Sun, Zheyu Shen, Ang Li",
        2024,
        "CASE-Lab-UMD/LLM-Drop",
    )
    reads_weights: ClassVar[bool] = False

    drop: int | float = param(
        0.25, "parts that are dropped: a whole number, or a share of those that may be", ge=0, sweep=(0.5, 0.1)
    )
    part: Whole = param("attention", "what is dropped; joint is attention and MLPs, whichever matter less")

    def change(self, model: Any, calibration: Calibration) -> None:
        """Ranks once and drops."""
        count = len(blocks(model))
        drop = self._count(model)
        least = self.importance(model, calibration).argsort(stable=True)[:drop].tolist()
        if self.part == "block":
            keep_blocks(model, [index for index in range(count) if index not in least])
            return
        ranked = self._ranked()
        for index in least:
            drop_part(model, index % count, ranked[index // count])

    def predicted_bytes(self, model: Any) -> int | None:
        """Known where what may be dropped is of one size."""
        sizes = {
            sum(weight_bytes(block.get_submodule(name)) for name in names)
            for index, block in enumerate(blocks(model))
            for names in ([[""]] if self.part == "block" else [part_names(model, index, p) for p in self._ranked()])
        }
        return weight_bytes(model) - self._count(model) * sizes.pop() if len(sizes) == 1 else None

    def importance(self, model: Any, calibration: Calibration) -> Float[Tensor, " part"]:
        """S of every part; jointly that of each block's attention, then that of each MLP. Of what is gone, infinity."""
        layers = list(blocks(model))
        ranked = ("block",) if self.part == "block" else self._ranked()
        sums, seen = torch.zeros(len(ranked), len(layers), dtype=torch.float64), {}

        def at(index: int, where: str) -> Watcher:
            def watch(states: States) -> None:
                seen[where] = states
                for row, part in enumerate(ranked):
                    begin, end = _BETWEEN[part]
                    if end == where:
                        alike = F.cosine_similarity(seen[begin].float(), states.float(), dim=-1)
                        sums[row, index] += alike.sum(dtype=torch.float64).item()

            return watch

        reads = {block: at(index, "in") for index, block in enumerate(layers)}
        gives = {block: at(index, "out") for index, block in enumerate(layers)}
        if self.part != "block":
            for index, block in enumerate(layers):
                reads[block.get_submodule(part_names(model, index, "mlp")[1])] = at(index, "between")
        for batch in unread(calibration, {"sums": sums}):
            with watched(reads, gives):
                model(input_ids=batch.to(model.device), use_cache=False)
        gone = torch.tensor([[is_dropped(block, part) for block in layers] for part in ranked])
        return (1 - sums / calibration.tokens.numel()).masked_fill(gone, float("inf")).flatten()

    def _count(self, model: Any) -> int:
        layers = list(blocks(model))
        if self.part == "block":
            there, most = len(layers), len(layers) - 1
        else:
            there = most = sum(not is_dropped(block, part) for block in layers for part in self._ranked())
        drop = count_of(self, "drop", self.drop, there)
        if drop > most:
            raise ModelError(f"{self}: {drop} parts of {there} cannot be dropped; allowed are at most {most}")
        return drop

    def _ranked(self) -> tuple[Part, ...]:
        return ("attention", "mlp") if self.part == "joint" else (self.part,)  # type: ignore[return-value]
