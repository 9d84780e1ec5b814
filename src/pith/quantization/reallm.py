"""ReALLM: a low-rank part in high precision, and the rest as codes of latents that a small decoder reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pith.core import ModelError, Paper, param
from pith.quantization import latent
from pith.quantization.latent_linear import STORED, LatentLinear, Shape
from pith.weights import Calibration, Quantizer, Stage, block_linears, walk, weight_of
from pith.weights.duplicate import duplicate
from pith.weights.experts import split_experts
from pith.weights.size import weight_bytes

_OVERSAMPLED = 10
"""Vectors beyond the rank with which a low-rank part is looked for."""


@dataclass(frozen=True, kw_only=True)
class ReALLM(Quantizer):
    """Split every matrix into a low-rank part of 16 bits and a rest that a small decoder makes of codes.

        W = L_1 L_2 + Q,  in turn  L_1 L_2 = the best of that rank for W - Q,  Q = the best codes for W - L_1 L_2
        Q = scale (z_j + V^T sin(U^T [z_(j-1), z_j] + phase)),  z_j = the latent of the j-th code in its row
        then of every block  min over all L_1, L_2  |block(x) - dense block(x)|^2          (sections 3.2, 3.3 and 3.4)

    A code stands for `bucket` weights one above another; the decoder, each matrix's own, is a codebook of latents with
    a sine network that also reads the latent to the left. Codes, scales (a byte for 64 weights), decoder and low-rank
    part are all stored, and are all that is stored. A forward decodes the whole matrix, which is slower than dense.
    Afterwards the low-rank parts, and only they, are tuned, block by block, on texts.

    Deviates: the paper's language results are those of its vector quantisation, whose decoder is a codebook; the
    convolutional autoencoder that it also describes is released without its fine-tuning and its evaluation. Here is
    the first with a decoder as small as that: it reads two latents, and codes are chosen for it by dynamic programming
    where the paper has an encoder. It is learned from 16384 vectors of a matrix, and held fixed in the alternation. The
    rank is a share of a matrix's smaller side, 64 of 4096 as in the paper. Columns are not reordered unless `permute`
    says so: an order takes 1/8 to 1/4 bit for each weight and lowers the squared error by 1 to 5 %. The authors find
    the place of a column again by looking for it, and lose those that are equal; here it is kept. Centres begin far
    from one another, where theirs are drawn at random. `steps` of tuning are few, and their rate is higher than the
    authors' 1e-5, which they keep up for 200 epochs; targets are the dense blocks' outputs on the inputs that the
    tuned blocks before give. There is no DoRA magnitude, and no tuning end to end. With 4 bits a code stands for one
    weight. Layers outside the blocks stay as they are.
    """

    paper: ClassVar[Paper] = Paper(
        "2405.13155",
        "ReALLM: A General Framework for LLM Compression and Fine-Tuning",
        "Lisa Bedin, Louis Leconte, Van Minh Nguyen, Eric Moulines",
        2024,
        "LisaBedin/ReALLM",
    )
    trains: ClassVar[bool] = True

    bits: Literal[2, 3, 4] = param(3, "of a code for each weight that it stands for", sweep=(2, 3, 4))
    bucket: Literal[1, 2] = param(2, "weights that a code stands for; with 4 bits 1")
    rank: int | float = param(
        1 / 64, "of the low-rank part: from 1 on a number, at most a matrix's smaller side; below a share of it", ge=0
    )
    permute: bool = param(False, "whether columns are coded in an order in which neighbours are alike")
    hidden: int = param(16, "numbers of the decoder's network", ge=1)
    learn: int = param(8, "rounds of choosing codes for the decoder and learning the decoder for them", ge=0)
    rounds: int = param(3, "alternations of the low-rank part and the codes at most", ge=1)
    steps: int = param(60, "of tuning a block's low-rank parts", ge=0)
    rate: float = param(1e-3, "of that tuning (Adam)", ge=0)
    skip: str | tuple[str, ...] = param("lm_head", "name patterns of layers that stay as they are")
    seed: int = param(0, "of all that is random", ge=0)

    def change(self, model: Any, calibration: Calibration) -> None:
        """Codes and tunes block by block."""
        split_experts(model, self.skip)
        names = list(block_linears(model, self.skip))
        for stage in walk(model, calibration):
            wanted = [stage.run(batch) for batch in range(len(stage.inputs))] if self.steps else []
            layers = []
            for name in names:
                if name.startswith(f"{stage.name}."):
                    old = model.get_submodule(name)
                    model.set_submodule(name, layer := self.coded(weight_of(old), old.bias))
                    layers.append((name, layer))
            if self.steps and layers:
                self._tune(model, stage, layers, wanted)
        self.warn("each forward decodes the matrices from their codes, which is slower than the dense model")

    def predicted_bytes(self, model: Any) -> int:
        """The model's bytes, less those of the layers' weights, and with those of their codes and all beside them."""
        model = duplicate(model)  # choosing splits experts
        split_experts(model, self.skip)
        total = weight_bytes(model)
        for layer in block_linears(model, self.skip).values():
            weight = weight_of(layer)
            total += self.shape(weight, None).nbytes() - weight.numel() * weight.element_size()
        return total

    def shape(self, weight: Float[Tensor, "out in"], bias: Tensor | None) -> Shape:
        """How a layer is stored."""
        out, inputs = weight.shape
        run = 1 if self.bits == 4 else self.bucket
        rank = int(self.rank) if self.rank >= 1 or not self.rank else max(round(self.rank * min(out, inputs)), 1)
        return Shape(
            inputs, out, bias is not None, self.bits * run, run, min(rank, out, inputs), self.hidden, self.permute
        )

    def coded(self, weight: Float[Tensor, "out in"], bias: Tensor | None = None) -> LatentLinear:
        """A layer that stands for a matrix, before it is tuned.

        Raises:
            ModelError: the matrix has numbers that are none.
        """
        shape = self.shape(weight, bias)
        whole = weight.float()
        if not bool(whole.isfinite().all()):
            raise ModelError(f"{self.name}: a matrix of {tuple(whole.shape)} holds numbers that are not finite")
        generator = torch.Generator().manual_seed(self.seed)
        layer = LatentLinear(shape, weight.dtype).to(weight.device)
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
        rest, least = whole, torch.inf
        decoder: latent.Decoder | None = None
        for _ in range(self.rounds):
            low = low_rank(rest, shape.rank, generator)
            residual = whole - low[0].float() @ low[1].float()
            order = latent.column_order(residual) if self.permute else None
            turned = residual if order is None else latent.reordered(residual, order)
            scales = latent.fit_scales(turned)
            spread = scales.spread(*turned.shape)
            targets, each = (latent.vectors(part, shape.run) for part in (turned / spread, spread))
            if decoder is None:
                decoder = latent.fit_decoder(targets, each, 2**shape.bits, (self.hidden, self.learn, 40), generator)
                decoder = decoder.stored_as(STORED)
            before = layer.state_dict()
            layer.hold(latent.cheapest_codes(targets, each, decoder.table()), scales, decoder, low, order)
            error = float((whole - layer.dense()).norm())
            if error >= least:
                layer.load_state_dict(before, assign=True)
                break
            least, rest = error, whole - layer.residual()
            if not shape.rank:
                break
        return layer

    def _tune(self, model: Any, stage: Stage, layers: list[tuple[str, LatentLinear]], wanted: list[Tensor]) -> None:
        """Brings the block nearer to what it gave before, by its low-rank parts alone."""
        tuned = [TunedLinear(layer) for _, layer in layers]
        for (name, _), module in zip(layers, tuned, strict=True):
            model.set_submodule(name, module)
        parts = [part for module in tuned for part in (module.left, module.right)]
        optimizer = torch.optim.Adam(parts, lr=self.rate, betas=(0.9, 0.95))
        for step in range(self.steps):
            optimizer.param_groups[0]["lr"] = self.rate * (1 - step / self.steps)
            batch = step % len(stage.inputs)
            with torch.enable_grad():
                loss = (stage.run(batch).float() - wanted[batch].float()).square().mean()
                gradients = torch.autograd.grad(loss / wanted[batch].float().square().mean(), parts, allow_unused=True)
            for part, gradient in zip(parts, gradients, strict=True):
                part.grad = gradient
            optimizer.step()
        for (name, layer), module in zip(layers, tuned, strict=True):
            layer.left, layer.right = module.left.detach().to(STORED), module.right.detach().to(STORED)
            model.set_submodule(name, layer)


class TunedLinear(nn.Module):
    """A latent layer while its low-rank part is tuned: the codes are decoded once."""

    def __init__(self, layer: LatentLinear) -> None:
        super().__init__()
        self.fixed, self.bias = layer.residual(), layer.bias
        self.left, self.right = (nn.Parameter(part.float()) for part in (layer.left, layer.right))

    def forward(self, x: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        """As the layer's own, with gradients for the low-rank part."""
        return nn.functional.linear(x, self.dense().to(x.dtype), self.bias)

    def dense(self) -> Float[Tensor, "out in"]:
        """The whole weight."""
        return self.fixed + self.left @ self.right


def low_rank(
    matrix: Float[Tensor, "out in"], rank: int, generator: torch.Generator
) -> tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in"]]:
    """The best approximation of that rank, the roots of its singular values on both sides, as it is stored.

    It is looked for in a random subspace (a randomised singular value decomposition with two power steps).
    """
    wide = min(rank + _OVERSAMPLED, *matrix.shape)
    basis = matrix @ torch.randn(matrix.shape[1], wide, generator=generator).to(matrix)
    for _ in range(2):
        basis = matrix @ (matrix.T @ torch.linalg.qr(basis).Q)
    basis = torch.linalg.qr(basis).Q
    left, sizes, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    roots = sizes[:rank].sqrt()
    return (basis @ left[:, :rank] * roots).to(STORED), (roots[:, None] * right[:rank]).to(STORED)
