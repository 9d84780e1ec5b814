"""FlexiGPT: blocks that matter least read the weights of others, with low-rank differences of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pith.core import ModelError, Paper, param
from pith.pruning.llm_drop import LLMDrop
from pith.weights import Calibration, Pruner, block_name, blocks, linears, parts, weight_of
from pith.weights.passes import count_of
from pith.weights.shared import SharedLinear
from pith.weights.size import weight_bytes

Factors = tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in"]]
"""U S and V^T of a singular value decomposition that was cut."""

_KEEP_EVERY = 16
"""Training steps after which what was learnt is kept."""


@dataclass(frozen=True, kw_only=True)
class FlexiGPT(Pruner):
    """Replace the blocks that matter least by kept ones with low-rank differences, and train these a little.

        influence   BI_i = 1 - mean_t cos(x_t, y_t); the blocks with the smallest go                      (section 3.1)
        base        of i: argmin_j sum_W ||W^_i - (W^_j + D_ij)||_F,  D_ij = rank-r part of W^_i - W^_j,  W^ = that of W
        weight      W_j + A B,   A = U S, B = V^T of the rank-r part of W_i - W_j                         (section 3.2)
        output      gain * normalised, after attention and after the MLP; gains start small               (section 3.3)

    As many blocks run as before, so that nothing gets faster; the bases stand once in memory and on disk, and of a
    replaced block only the differences are added. Its norms, cache and positions are its own. With gains of 0 a
    replaced block does nothing. The result is a model that only Pith loads; write it last among pruners.

    Needs the calibration for the influence and as what is trained on: next tokens, AdamW, the rate falling by a cosine.

    Deviates: 48 steps of some 2000 tokens instead of a billion tokens, and only differences and gains learn (the paper
    does not say whether bases do); the rank is a share of the hidden width (256 of 4096 in the paper). The paper does
    not say where gains start, nor what its norm has beside the gain: here no bias. There is no authors' code. A share
    of blocks is rounded up. Extending a model by repeated blocks is not here.
    """

    paper: ClassVar[Paper] = Paper(
        "2501.14713",
        "FlexiGPT: Pruning and Extending Large Language Models with Low-Rank Weight Sharing",
        "James Seale Smith, Chi-Heng Lin, Shikhar Tuli, Haris Jeelani, Shangqian Gao, Yilin Shen, Hongxia Jin, et al.",
        2025,
    )
    trains: ClassVar[bool] = True
    shares: ClassVar[bool] = True

    drop: int | float = param(
        0.3, "blocks that are replaced: a whole number, or a share of all", ge=0, sweep=(0.5, 0.1)
    )
    rank: int | float = param(
        0.0625,
        "rank of the differences: a whole number, or a share of the hidden width; at most a matrix's smaller side",
        ge=0,
    )
    gain: float = param(0.3, "where the gains of outputs start", ge=0)
    steps: int = param(48, "training steps", ge=0)
    rate: float = param(0.004, "learning rate at the first step", ge=0)
    seed: int = param(0, "of the order in which texts are trained on", ge=0)

    def change(self, model: Any, calibration: Calibration) -> None:
        """Chooses blocks and bases, shares, trains."""
        count, rank = self._count(model), self._rank(model)
        for block in blocks(model):
            parts(block)  # what cannot be taken is refused before anything is read
        influence = LLMDrop(part="block").importance(model, calibration)
        dropped = sorted(influence.argsort(stable=True)[:count].tolist())
        kept = calibration.recall("bases")
        if kept is None:
            bases = choose_bases(model, dropped, rank)
            kept = {"bases": torch.tensor([bases[index] for index in dropped])}
            calibration.remember("bases", kept)
        shared = [
            layer
            for index, base in zip(dropped, kept["bases"].tolist(), strict=True)
            for layer in share_block(model, index, base, rank, self.gain)
        ]
        if self.steps and shared:
            self._train(model, shared, calibration)

    def predicted_bytes(self, model: Any) -> int | None:
        """Known where all blocks are of one size."""
        sizes = {weight_bytes(block) for block in blocks(model)}
        if len(sizes) != 1:
            return None
        rank, count, each = self._rank(model), count_of(self, "drop", self.drop, len(blocks(model))), 0
        block = blocks(model)[0]
        gained = {parts(block).o, parts(block).down}
        for _, linear in linears(block):
            out, inputs = weight_of(linear).shape
            each += out * inputs - min(rank, out, inputs) * (out + inputs) - (out if linear in gained else 0)
        return int(weight_bytes(model) - count * each * model.dtype.itemsize)

    def _count(self, model: Any) -> int:
        """Return how many blocks are replaced.

        Raises:
            ModelError: none would be left to share with.
        """
        count = len(blocks(model))
        drop = count_of(self, "drop", self.drop, count)
        if drop >= count:
            raise ModelError(f"{self}: {drop} blocks of {count} cannot be replaced; allowed are at most {count - 1}")
        return drop

    def _rank(self, model: Any) -> int:
        return count_of(self, "rank", self.rank, model.config.get_text_config(decoder=True).hidden_size)

    def _train(self, model: Any, layers: list[SharedLinear], calibration: Calibration) -> None:
        """Trains differences and gains, in float32; no other parameter is given a gradient."""
        learnt = [p for layer in layers for p in (layer.left, layer.right, layer.gain) if p is not None]
        dtypes = [parameter.dtype for parameter in learnt]
        for parameter in learnt:
            parameter.data = parameter.data.float()
        optimizer = torch.optim.AdamW(learnt, lr=self.rate, weight_decay=0.0)
        begin = _resumed(learnt, optimizer, calibration)
        texts, size = calibration.tokens, max(2048 // calibration.tokens.shape[1], 1)
        for step in range(begin, self.steps):
            calibration.told(step, self.steps)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            batch = texts[torch.randperm(len(texts), generator=generator)[:size]].to(model.device)
            for group in optimizer.param_groups:
                group["lr"] = self.rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            with torch.enable_grad():
                logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
                loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
                for parameter, slope in zip(learnt, torch.autograd.grad(loss, learnt), strict=True):
                    parameter.grad = slope
            optimizer.step()
            if (step + 1) % _KEEP_EVERY == 0 or step + 1 == self.steps:
                calibration.remember("training", _progress(step + 1, learnt, optimizer))
        calibration.told(self.steps, self.steps)
        for parameter, dtype in zip(learnt, dtypes, strict=True):
            parameter.data, parameter.grad = parameter.data.to(dtype), None


def cut(weight: Float[Tensor, "out in"], rank: int) -> Factors:
    """The best approximation of a rank, as its two factors."""
    left, values, right = torch.linalg.svd(weight.float(), full_matrices=False)
    return left[:, :rank] * values[:rank], right[:rank]


def distance(one: Factors, other: Factors, rank: int) -> float:
    """How far the difference of two cut matrices is from its own best approximation of a rank, as a Frobenius norm.

    The difference has at most twice the rank, so that its singular values are those of a small core.
    """
    left = torch.linalg.qr(torch.cat([one[0], -other[0]], dim=1)).R
    right = torch.linalg.qr(torch.cat([one[1], other[1]]).T).R
    return float(torch.linalg.svdvals(left @ right.T)[rank:].norm())


def choose_bases(model: Any, dropped: list[int], rank: int) -> dict[int, int]:
    """For every block that is to be replaced, the kept one that is nearest once both are cut to the rank.

    Raises:
        ModelError: no kept block has the same linear layers.
    """
    shapes = [{name: weight_of(one).shape for name, one in linears(block)} for block in blocks(model)]
    factors = [{name: cut(weight_of(one), rank) for name, one in linears(block)} for block in blocks(model)]
    chosen: dict[int, int] = {}
    for index in dropped:
        bases = [base for base, found in enumerate(shapes) if base not in dropped and found == shapes[index]]
        if not bases:
            raise ModelError(f"flexi_gpt: no block that stays has the linear layers of block {index}")
        far = {base: sum(distance(own, factors[base][n], rank) for n, own in factors[index].items()) for base in bases}
        chosen[index] = min(bases, key=lambda base: (far[base], base))
    return chosen


def share_block(model: Any, index: int, base: int, rank: int, gain: float) -> list[SharedLinear]:
    """Puts shared layers in the place of a block's linear ones, and returns them.

    Raises:
        ModelError: the block is not of the Llama kind, or normalises what its parts give, so that gains would be lost.
    """
    block, of, shared = blocks(model)[index], parts(blocks(model)[index]), []
    if of.output_norms:
        raise ModelError(
            f"flexi_gpt: block {index} normalises what attention and MLP give; allowed are blocks that do not"
        )
    for name, linear in list(linears(block)):
        other = blocks(model)[base].get_submodule(name)
        layer = share_linear(
            linear, other, f"{block_name(model, base)}.{name}", rank, gain if linear in (of.o, of.down) else None
        )
        layer.placed(model)
        block.set_submodule(name, layer)
        shared.append(layer)
    return shared


def share_linear(linear: nn.Module, other: nn.Module, base: str, rank: int, gain: float | None) -> SharedLinear:
    """The layer that is nearest to a linear one among those of a rank over another."""
    weight, own, theirs = weight_of(linear), getattr(linear, "bias", None), getattr(other, "bias", None)
    left, right = cut(weight.float() - weight_of(other).float(), rank)
    out, inputs = weight.shape
    layer = SharedLinear(base, inputs, out, left.shape[1], own is not None, gain is not None, weight.dtype)
    layer.left, layer.right = (nn.Parameter(one.to(weight.dtype).contiguous()) for one in (left, right))
    if own is not None:
        layer.bias = nn.Parameter(own.detach() - (0 if theirs is None else theirs.detach()))
    if gain is not None:
        layer.gain = nn.Parameter(weight.new_full((out,), gain))
    return layer.to(weight.device)


def _progress(step: int, learnt: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    found = {"step": torch.tensor(step)}
    for index, parameter in enumerate(learnt):
        found[f"{index}.value"] = parameter
        found |= {f"{index}.{name}": value for name, value in optimizer.state[parameter].items()}
    return found


def _resumed(learnt: list[nn.Parameter], optimizer: torch.optim.Optimizer, calibration: Calibration) -> int:
    """Puts back what `_progress` gave, if anything was kept; the step to go on from."""
    kept: Mapping[str, Tensor] = calibration.recall("training") or {}
    if not kept:
        return 0
    for index, parameter in enumerate(learnt):
        own = {key.split(".")[1]: one for key, one in kept.items() if key.startswith(f"{index}.")}
        parameter.data = own.pop("value").to(parameter)
        optimizer.state[parameter] = {
            name: one if name == "step" else one.to(parameter.device) for name, one in own.items()
        }
    return int(kept["step"])
