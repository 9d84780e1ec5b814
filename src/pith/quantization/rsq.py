"""RSQ: rotate, scale tokens by their importance, quantize."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pith.core import Paper, param
from pith.quantization.gptq import GPTQ
from pith.weights import Calibration, Grid, Stage, blocks, parts, walk
from pith.weights.duplicate import duplicate
from pith.weights.grid import grouped
from pith.weights.rotation import rotate


@dataclass(frozen=True, kw_only=True)
class RSQ(GPTQ):
    """Rotate the model, then round as `gptq` does, with tokens that count as much as attention is paid to them.

        r_j = sum over heads and queries of the attention paid to token j                     (section 4.2, AttnCon)
        r_j = least + (1 - least) (r_j - min r) / (max r - min r), then r_j / mean r          for every sequence
        H   = 2 / N sum_j r_j x_j x_j^T                                           for every layer of the block (eq. 4)

    The rotation takes outliers out of the weights and changes nothing that the model gives: gains of norms go into the
    layers after them, which read the residual stream times a randomised Hadamard matrix; so do values, head by head,
    before the output projection. Where input and output embeddings are one, they become two, which takes the bytes of
    one more. Attention is that of the block before it is rounded, on what the rounded blocks before it give.

    It takes models of the Llama kind without experts, with root-mean-square norms before each part and none after it.

    Deviates: as `gptq` does, but layers of a block are rounded one after another and ranges are searched. Grids are
    asymmetric in groups of 128 as for every quantizer here; the paper's are symmetric over whole rows. `symmetric`
    gives the code's: a step of max|w| / (2^(bits - 1) - 1), one more step below 0 than above. The paper's H has r
    squared, features scaled by r; the code scales them by its root, as here. `least` is that of the code's scripts; the
    paper has 0.01. What the MLP's last layer reads is not rotated, nor are heads with one another: both need a Hadamard
    transform in every forward. The code subtracts means from embeddings, which is neutral for layer norms only; here
    they stay. Sizes that are no powers of two have a random orthogonal factor. A model is refused if it gives something
    else after its rotation.
    """

    paper: ClassVar[Paper] = Paper(
        "2503.01820",
        "RSQ: Learning from Important Tokens Leads to Better Quantized LLMs",
        "Yi-Lin Sung, Prateek Yadav, Jialu Li, Jaehong Yoon, Mohit Bansal",
        2025,
        "ylsung/rsq",
    )

    true_sequential: bool = param(True, "whether layers of a block read what those before them, already rounded, give")
    mse: bool = param(True, "whether each grid's range is made smaller where that comes nearer to the weights")
    rotate: bool = param(True, "whether the model is rotated before")
    least: float = param(
        0.005, "how much a sequence's least important token counts; its most important has 1", ge=0, le=1
    )
    expansion: int = param(1, "how often each sequence is read, each time rolled on by one more of as many parts", ge=1)
    seed: int = param(0, "of the rotation", ge=0)

    def change(self, model: Any, calibration: Calibration) -> None:
        """Rotates, then rounds block by block."""
        for block in blocks(model):
            parts(block)  # refuses what cannot be taken before anything is done
        if self.rotate:
            rotate(model, self.seed)
        super().change(model, calibration)

    def predicted_bytes(self, model: Any) -> int | None:
        """As for every quantizer; embeddings that are one become two."""
        predicted, own = super().predicted_bytes(model), duplicate(model)  # choosing may split experts
        output = own.get_output_embeddings()
        shared = getattr(output, "weight", None) is own.get_input_embeddings().weight
        packed = any(own.get_submodule(name) is output for name in self.chosen(own))
        if predicted is None or packed or not (self.rotate and shared):
            return predicted
        return predicted + int(output.weight.nbytes)

    def stages(self, model: Any, calibration: Calibration) -> Iterator[Stage]:
        """The blocks with the rolled sequences too."""
        return walk(model, replace(calibration, tokens=expanded(calibration.tokens, self.expansion)))

    def importance(self, model: Any, stage: Stage) -> Float[Tensor, " token"]:
        """What every token counts."""
        return scaled(attention_received(model, stage), self.least).flatten()

    def fitted(self, weight: Float[Tensor, "out in"], bits: int) -> Grid:
        """Symmetric grids have a step of max|w| / (2^(bits - 1) - 1)."""
        if not self.symmetric and bits != 8:
            return super().fitted(weight, bits)
        size = self.group_of(bits, weight.shape[1])
        largest = grouped(weight.float(), size).abs().amax(-1).clamp(min=1e-5)
        scale = largest / (2 ** (bits - 1) - 1)
        return Grid(bits, scale, torch.full_like(scale, 2 ** (bits - 1)), size)


def attention_received(model: Any, stage: Stage) -> Float[Tensor, "sequence token"]:
    """The attention that is paid to every token in a block, over all heads and queries, with the block as it is."""
    received: list[Tensor] = []

    def written_out(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        mask, dtype = kwargs.get("attention_mask"), model.dtype
        if mask is None:  # other ways to compute attention are causal by themselves
            tokens = stage.inputs[0].shape[1]
            mask = torch.ones(tokens, tokens, dtype=torch.bool, device=model.device).tril()[None, None]
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
        return args, {**kwargs, "attention_mask": mask}

    def read(module: nn.Module, args: Any, output: Any) -> None:
        received.append(output[1].float().sum(dim=(1, 2)))
        raise _Read

    attention = parts(stage.block).attention
    hooks = [
        attention.register_forward_pre_hook(written_out, with_kwargs=True), attention.register_forward_hook(read)
    ]  # fmt: skip
    try:
        with _eager(model):
            for batch in range(len(stage.inputs)):
                try:
                    stage.run(batch)
                except _Read:
                    continue
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(received)


def scaled(received: Float[Tensor, "sequence token"], least: float) -> Float[Tensor, "sequence token"]:
    """From `least` to 1 in every sequence, then divided by the sequence's mean; ones where all are equal."""
    low, high = received.aminmax(dim=1, keepdim=True)
    share = torch.where(high > low, (received - low) / (high - low), 1)
    important = (share * (1 - least) + least).clamp(least, 1)
    return important / important.mean(dim=1, keepdim=True)


def expanded(tokens: Int[Tensor, "sequence token"], times: int) -> Int[Tensor, "more token"]:
    """Every sequence `times` times, each time rolled on by one more of `times` parts of it."""
    step = tokens.shape[1] // times
    return torch.stack([tokens.roll(step * index, dims=1) for index in range(times)], dim=1).flatten(0, 1)


class _Read(Exception):  # noqa: N818  (it is no error)
    """The attention was seen; the rest of the block need not run."""


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """The model with attention that says its probabilities."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
