"""FLAP: heads and channels that hardly fluctuate go, and a bias takes over what they gave on average."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pith.core import Paper, param
from pith.weights import Calibration, Pruner, blocks, heads, keep_channels, keep_heads, parts, settle
from pith.weights.linears import set_bias, weight_of
from pith.weights.passes import unread, watched

Metric = Literal["wifv", "ifv", "wifn"]


@dataclass(frozen=True, kw_only=True)
class FLAP(Pruner):
    """Remove the heads and MLP channels whose values vary least, and add to the outputs what they gave on average.

        fluctuation_j = 1 / (n - 1) sum_t (x_tj - mean_j)^2                                (the paper's metric WIFV)
        score_j       = fluctuation_j * sum_i W_ij^2         W: the layer that reads x, o_proj or down_proj
        standard_j    = (score_j - mean) / std               over a layer's inputs; a head's is the mean of its inputs'
        bias          = W[:, removed] mean[removed]

    All heads and channels of all layers stand in one ranking, each with what it costs in weights, so that every layer
    gets widths of its own. Nothing is trained. The result loads with Pith only, unless all layers come out equal.

    Deviates: the authors' running fluctuation is no variance (it leaves out the first text, weighs texts by their
    order and reads the mean after it has moved); here it is the variance over all tokens. They square the scores of
    attention before these are standardised; here both kinds are treated alike. With grouped queries a key-value head
    goes with all query heads that read it, and costs what they hold; the authors know one query head a key-value head,
    of 128 numbers, and count it as 170 channels whatever its size. Biases are added to those that are there; the
    authors overwrite them. The element at the threshold stays; the authors' comparison removes it.
    """

    paper: ClassVar[Paper] = Paper(
        "2312.11983",
        "Fluctuation-based Adaptive Structured Pruning for Large Language Models",
        "Yongqi An, Xu Zhao, Tao Yu, Ming Tang, Jinqiao Wang",
        2023,
        "CASIA-IVA-Lab/FLAP",
    )

    sparsity: float = param(0.2, "share of the blocks' weights that is removed", ge=0.0, le=0.95, sweep=(0.5, 0.1))
    metric: Metric = param("wifv", "fluctuation with weights, without, or the norm of inputs with weights")
    adaptive: bool = param(True, "whether layers get widths of their own; else each loses the same share of each kind")

    def change(self, model: Any, calibration: Calibration) -> None:
        """Reads the dense model once, ranks, and removes."""
        read = moments(model, calibration)
        scores = self.scores(model, read)
        kept = (
            ranked_together(scores, costs(model), self.sparsity)
            if self.adaptive
            else ranked_by_layer(scores, self.sparsity)
        )
        for index, block in enumerate(blocks(model)):
            found, of_heads, of_channels = parts(block), kept["attention"][index], kept["mlp"][index]
            width = weight_of(found.o).shape[1] // len(of_heads)
            if not of_heads.all():
                compensate(found.o, read["attention", index].mean, ~of_heads.repeat_interleave(width))
                keep_heads(model, index, of_heads.nonzero().flatten())
            if not of_channels.all():
                compensate(found.down, read["mlp", index].mean, ~of_channels)
                keep_channels(block, of_channels.nonzero().flatten())
        settle(model)

    def scores(self, model: Any, read: Moments) -> Scores:
        """The standardised score of every key-value head and every channel, by kind and block."""
        head_dim = heads(model)[2]
        found: Scores = {"attention": [], "mlp": []}
        for index, block in enumerate(blocks(model)):
            layers = parts(block)
            groups = weight_of(layers.k).shape[0] // head_dim
            of_inputs = self._standardised(layers.o, read["attention", index])
            found["attention"].append(of_inputs.view(groups, -1).mean(-1))
            found["mlp"].append(self._standardised(layers.down, read["mlp", index]))
        return found

    def _standardised(self, linear: nn.Module, read: Fluctuation) -> Float[Tensor, " in"]:
        weight = weight_of(linear).double()
        score = read.variance
        if self.metric == "wifv":
            score = score * weight.square().sum(0)
        elif self.metric == "wifn":
            score = weight.abs().mean(0) * read.square.sqrt()
        return (score - score.mean()) / score.std().clamp(min=torch.finfo(score.dtype).tiny)


class Fluctuation:
    """Mean and variance of what a layer reads, over all tokens, batch by batch.

    Attributes:
        tokens: how many were read.
        mean: of every input.
        deviations: the sum of the squared distances from the mean.
    """

    def __init__(self, inputs: int, device: torch.device) -> None:
        self.tokens = torch.zeros((), dtype=torch.float64)
        self.mean: Float[Tensor, " in"] = torch.zeros(inputs, dtype=torch.float64, device=device)
        self.deviations: Float[Tensor, " in"] = torch.zeros_like(self.mean)

    def add(self, states: Float[Tensor, "... token in"]) -> None:
        """Counts tokens in; the sums of two sets of tokens are made one exactly."""
        rows = states.flatten(0, -2).double()
        mean, before, new = rows.mean(0), float(self.tokens), len(rows)
        apart = mean - self.mean
        self.deviations += (rows - mean).square().sum(0) + apart.square() * (before * new / (before + new))
        self.mean += apart * (new / (before + new))
        self.tokens += new

    @property
    def variance(self) -> Float[Tensor, " in"]:
        """Of every input, unbiased."""
        return self.deviations / (self.tokens - 1).clamp(min=1).to(self.mean.device)

    @property
    def square(self) -> Float[Tensor, " in"]:
        """The mean of the square of every input."""
        return self.deviations / self.tokens.to(self.mean.device) + self.mean.square()


Kind = Literal["attention", "mlp"]
Moments = dict[tuple[Kind, int], Fluctuation]
Scores = dict[Kind, list[Float[Tensor, " unit"]]]
Kept = dict[Kind, list[Bool[Tensor, " unit"]]]


def moments(model: Any, calibration: Calibration) -> Moments:
    """Mean and variance of what every o_proj and down_proj reads, in one reading of the texts."""
    found: Moments = {}
    watchers: dict[nn.Module, Callable[[Tensor], None]] = {}
    for index, block in enumerate(blocks(model)):
        layers = parts(block)
        linears: dict[Kind, nn.Module] = {"attention": layers.o, "mlp": layers.down}
        for kind, linear in linears.items():
            weight = weight_of(linear)
            found[kind, index] = Fluctuation(weight.shape[1], weight.device)
            watchers[linear] = found[kind, index].add
    kept = {
        f"{kind}-{index}-{name}": getattr(one, name)
        for (kind, index), one in found.items()
        for name in ("tokens", "mean", "deviations")
    }
    for tokens in unread(calibration, kept):
        with watched(watchers):
            model(input_ids=tokens.to(model.device), use_cache=False)
    return found


def costs(model: Any) -> dict[Kind, list[float]]:
    """The weights that one key-value head with its query heads has, and those that one channel has, by block."""
    head_dim, found = heads(model)[2], list(map(parts, blocks(model)))
    of_heads = [sum(weight_of(one).numel() for one in (p.q, p.k, p.v, p.o)) for p in found]
    of_channels = [sum(weight_of(one).numel() for one in (p.gate, p.up, p.down) if one is not None) for p in found]
    return {
        "attention": [one * head_dim / weight_of(p.k).shape[0] for one, p in zip(of_heads, found, strict=True)],
        "mlp": [one / weight_of(p.down).shape[1] for one, p in zip(of_channels, found, strict=True)],
    }


def ranked_together(scores: Scores, cost: dict[Kind, list[float]], sparsity: float) -> Kept:
    """What is kept of all layers in one ranking: the best, with as near to the share of weights as they come."""
    units = [(kind, index, one) for kind, of_blocks in scores.items() for index, one in enumerate(of_blocks)]
    score = torch.cat([one for _, _, one in units])
    price = torch.cat([torch.full_like(one, cost[kind][index]) for kind, index, one in units])
    order = score.argsort(descending=True, stable=True)
    spent = price[order].cumsum(0)
    count = int((spent - (1 - sparsity) * spent[-1]).abs().argmin()) + 1
    keep = torch.zeros_like(score, dtype=torch.bool)
    keep[order[:count]] = True
    kept: Kept = {"attention": [], "mlp": []}
    for (kind, _, _), one in zip(units, torch.split(keep, [len(one) for _, _, one in units]), strict=True):
        kept[kind].append(one)
    return kept


def ranked_by_layer(scores: Scores, sparsity: float) -> Kept:
    """What is kept where every layer loses the same share, rounded down, of its heads and of its channels."""
    return {
        kind: [one.argsort(stable=True).argsort() >= int(sparsity * len(one)) for one in of_blocks]
        for kind, of_blocks in scores.items()
    }


def compensate(linear: nn.Module, mean: Float[Tensor, " in"], removed: Bool[Tensor, " in"]) -> None:
    """Adds to a layer's bias what inputs that will be removed gave on average."""
    given = weight_of(linear)[:, removed].double() @ mean[removed]
    old: Tensor | None = getattr(linear, "bias", None)
    set_bias(linear, given if old is None else old.double() + given)
