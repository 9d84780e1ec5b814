"""RSQ: rotate, scale tokens by their importance, quantize."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pith.core import ModelError, Paper, param
from pith.quantization.gptq import GPTQ
from pith.weights import Calibration, Grid, Stage, parts
from pith.weights.blocks import blocks
from pith.weights.rotation import rotate
from pith.weights.shrink import shrunk


@dataclass(frozen=True, kw_only=True)
class RSQ(GPTQ):
    """Rotate the model, and round as `gptq` does with a Hessian in which tokens count by the attention they get."""

    paper: ClassVar[Paper] = Paper(
        "2503.01820",
        "RSQ: Learning from Important Tokens Leads to Better Quantized LLMs",
        "Yi-Lin Sung, Prateek Yadav, Jialu Li, Jaehong Yoon, Mohit Bansal",
        2025,
        "ylsung/rsq",
    )

    symmetric: bool = param(True, "whether a grid reaches as far below 0 as above; with 8 bits always")
    true_sequential: bool = param(
        True, "whether layers of a block read what those before them, already rounded, give"
    )
    mse: bool = param(True, "whether each grid's range is made smaller where that comes nearer to the weights")
    rotate: bool = param(True, "whether the model is rotated first")
    least: float = param(0.005, "importance of the token with the least attention, where the one with most has 1", ge=0.0, le=1.0)
    expansion: int = param(1, "how often each sequence is read, every time rolled on by as many parts of it", ge=1)
    seed: int = param(0, "of the rotation", ge=0)

    def change(self, model: Any, calibration: Calibration) -> None:
        if self.rotate:
            rotate(model, self.seed)
        calibration = replace(calibration, tokens=expanded(calibration.tokens, self.expansion))
        with eager(model):
            super().change(model, calibration)

    def round_block(self, model, stage, chosen, importance=None):
        return super().round_block(model, stage, chosen, self.importance(stage))

    def importance(self, stage: Stage) -> Float[Tensor, " token"]:
        received: list[Tensor] = []

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            received.append(output[1].float().sum(dim=(1, 2)))

        handle = parts(stage.block).attention.register_forward_hook(hook)
        try:
            for batch in range(len(stage.inputs)):
                stage.run(batch)
        finally:
            handle.remove()
        return scaled(torch.cat(received), self.least).flatten()

    def grid(self, weight: Float[Tensor, "out in"], bits: int) -> Grid:
        return super().grid(weight, bits)


def scaled(received, least):
    low, high = received.aminmax(dim=1, keepdim=True)
    scaled = (received - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny) * (1 - least) + least
    return scaled / scaled.mean(dim=1, keepdim=True)


def expanded(tokens, times):
    step = tokens.shape[1] // times
    return torch.stack([tokens.roll(step * k, dims=1) for k in range(times)], dim=1).flatten(0, 1)


@contextmanager
def eager(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
