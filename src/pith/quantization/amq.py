"""AMQ: a width of its own for every linear layer, found within a budget by measuring few and predicting many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pith.core import ModelError, Paper, Patterns, param
from pith.quantization.gptq import GPTQ
from pith.quantization.hqq import HQQ
from pith.quantization.rbf import CubicRBF
from pith.quantization.widths import gap_fillers, proposed
from pith.weights import Calibration, Quantizer, WeightQuantizer, block_linears
from pith.weights.experts import split_experts

WIDTHS = (2, 3, 4)
"""The bits that a layer may get; a gene says which of them."""

_EPS = 1e-7


@dataclass(frozen=True, kw_only=True)
class AMQ(Quantizer):
    """Find the bits of every linear layer, 2, 3 or 4, that lose least within an average; another method packs them.

        loss(widths) = JSD(dense logits || logits with every layer from its proxy of that width), mean over tokens
        JSD(p || q) = 1/2 KL(p || m) + 1/2 KL(q || m),   m = (p + q) / 2
        pinned to 4 bits: layers that alone at 2 bits, all others at 4, lose over `threshold` times the median
        then, `rounds` times: predict the loss from what was measured; search (predicted loss, bits); measure the best
                                                                                       (section 3, algorithm 1)

    Proxies are layers packed by `hqq`, once for each width, and swapped in. The predictor is a cubic radial basis
    function with a linear tail, the search NSGA-II. At last the widths with the least measured loss whose bits keep
    within the average are given to `of`. Bits are those that packed layers hold, their scales counted in, in the
    model's dtype. Beside the model the proxies are held, and the dense logits of what is measured on.

    Deviates: far fewer are measured (the authors: 250 at first, then 200 rounds of 50, on 128 sequences of 2048), so
    that it ends in minutes; those that the pins were found by are learned from, too. A third of each round's
    candidates lie just within the average that is asked for; the others fill the largest gaps in bits one by one, where
    the authors let another genetic algorithm even them. Optuna's NSGA-II draws single genes anew, theirs whole genomes.
    Where pins alone would go beyond the average, the least sensitive of them are let go. The last step is `gptq` by
    default, of which their code knows awq, gptq and owq. Every expert's layers are genes of their own.
    """

    paper: ClassVar[Paper] = Paper(
        "2509.12019",
        "AMQ: Enabling AutoML for Mixed-precision Weight-Only Quantization of Large Language Models",
        "Sangjun Lee, Seung-taek Woo, Jungyu Jin, Changhun Lee, Eunhyeok Park",
        2025,
        "dlwns147/amq",
    )
    trains: ClassVar[bool] = True

    bits: int | float = param(
        3.25, "of a weight on average at most, scales counted in", ge=2.0, le=6.0, sweep=(2.5, 4.25)
    )
    of: WeightQuantizer = param(
        GPTQ(), "the quantizer that packs the layers at last, with its groups, but not its bits"
    )
    threshold: float = param(2.0, "times the median sensitivity, above which a layer is pinned to 4 bits", ge=0)
    sequences: int = param(4, "of the calibration, on which losses are measured", ge=1)
    initial: int = param(40, "random choices of widths that are measured first", ge=0)
    rounds: int = param(8, "of predicting, searching and measuring", ge=0)
    candidates: int = param(12, "that are measured in a round", ge=1)
    population: int = param(50, "of the search", ge=2)
    generations: int = param(10, "of the search", ge=1)
    seed: int = param(0, "of all that is random", ge=0)

    def fitted_to(self, model: Any) -> AMQ:
        """Return the method whose last step has its group size as a number."""
        size = replace(self.of, bits=4).fitted_to(model).group_size
        return replace(self, of=replace(self.of, group_size=size))

    def change(self, model: Any, calibration: Calibration) -> None:
        """Searches, and lets the other quantizer pack what was found."""
        split_experts(model, self.of.skip)
        layers = block_linears(model, self.of.skip)
        proxies = Proxies(model, layers, self.of, calibration.tokens[: self.sequences])
        genes = self._search(proxies, calibration)
        proxies.take_back()
        chosen = Patterns({name: WIDTHS[gene] for name, gene in zip(layers, genes.tolist(), strict=True)})
        replace(self.of, bits=chosen).change(model, calibration)

    def _search(self, proxies: Proxies, calibration: Calibration) -> Int[Tensor, " layer"]:
        """The genes that lose least within the average.

        Raises:
            ModelError: no choice keeps within it.
        """
        count = len(proxies.names)
        uniform = torch.arange(len(WIDTHS))[:, None].expand(-1, count)
        least, most = proxies.bits(uniform[:1]).item(), proxies.bits(uniform[-1:]).item()
        if self.bits < least:
            raise ModelError(
                f"{self.name}: bits={self.bits} is too few for {count} layers in groups of {self.of.group_size}, whose "
                f"scales count; allowed is {least:.4g} to {most:.4g}"
            )
        if self.bits >= most:
            return uniform[-1]
        archive = Archive(proxies, calibration, count + 3 + self.initial + self.rounds * self.candidates)
        single = uniform[-1].repeat(count, 1).fill_diagonal_(0)
        archive.measure(single, "sensitivity")
        pinned = self._pins(proxies, archive.losses[:count])
        archive.measure(torch.where(pinned, len(WIDTHS) - 1, uniform), "uniform")
        archive.measure(torch.where(pinned, len(WIDTHS) - 1, self._random(count)), "random")
        free = ~pinned
        for turn in range(self.rounds if bool(free.any()) else 0):
            if (kept := archive.kept(f"round-{turn}")) is not None:
                archive.add(*kept)
                continue
            predict = CubicRBF.through(archive.genes[:, free] / (len(WIDTHS) - 1), archive.losses)
            archive.measure(self._candidates(proxies, archive, predict, free, turn), f"round-{turn}")
        fits = proxies.bits(archive.genes) <= self.bits + 1e-9
        return archive.genes[archive.losses.masked_fill(~fits, torch.inf).argmin()]

    def _pins(self, proxies: Proxies, sensitivity: Float[Tensor, " layer"]) -> Tensor:
        """Which layers keep 4 bits whatever the others get."""
        pinned = pinned_layers(sensitivity, self.threshold)
        for layer in sensitivity.argsort().tolist():
            if proxies.bits(torch.where(pinned, len(WIDTHS) - 1, 0)[None]).item() <= self.bits:
                break
            pinned[layer] = False
        return pinned

    def _random(self, count: int) -> Int[Tensor, "choice layer"]:
        """Choices of widths, each with its own chances."""
        generator = torch.Generator().manual_seed(self.seed)
        chances = torch.rand(self.initial, len(WIDTHS), generator=generator)
        if not self.initial:
            return torch.zeros(0, count, dtype=torch.long)
        return torch.multinomial(chances, count, replacement=True, generator=generator)

    def _candidates(
        self, proxies: Proxies, archive: Archive, predict: CubicRBF, free: Tensor, turn: int
    ) -> Int[Tensor, "choice layer"]:
        """What is measured next: choices that the predictor holds to be good and that are not measured yet."""

        def losses(genes: Int[Tensor, "choice layer"]) -> Float[Tensor, " choice"]:
            return predict(genes[:, free] / (len(WIDTHS) - 1))

        front = archive.genes[not_dominated(archive.losses, proxies.bits(archive.genes))]
        found = proposed(
            lambda genes: torch.stack([losses(genes), proxies.bits(genes)], dim=1),
            front[-self.population :],
            free.nonzero()[:, 0].tolist(),
            (self.population, self.generations, self.seed + turn),
        )
        known = set(map(tuple, archive.genes.tolist()))
        new = torch.tensor([row for row in found.tolist() if tuple(row) not in known], dtype=torch.long)
        if not len(new):
            return torch.zeros(0, len(free), dtype=torch.long)
        bits, loss = proxies.bits(new), losses(new)
        within = (bits <= self.bits).nonzero()[:, 0]
        best = within[loss[within].argsort()][: -(-self.candidates // 3)].tolist()
        good = not_dominated(loss, bits).nonzero()[:, 0].tolist()
        rest = [index for index in good if index not in best]
        held = torch.cat([proxies.bits(front), bits[best]])
        best += [rest[index] for index in gap_fillers(bits[rest], held, self.candidates - len(best))]
        return new[best]


class Proxies:
    """Every layer packed in every width, one of which stands in the model at a time.

    Args:
        model: that is measured.
        layers: its linear layers by name.
        of: the quantizer whose groups are taken.
        tokens: on which is measured.

    Attributes:
        names: of the layers.
    """

    def __init__(
        self, model: Any, layers: dict[str, nn.Module], of: WeightQuantizer, tokens: Int[Tensor, "sequence token"]
    ) -> None:
        self.names, self._model, self._plain = list(layers), model, layers
        self._batches = list(torch.split(tokens.to(model.device), max(2048 // max(tokens.shape[1], 1), 1)))
        self._dense = [self._logits(batch) for batch in self._batches]
        hqq = HQQ(group_size=of.group_size, skip=of.skip)
        self._packed: list[list[nn.Module]] = []
        for name, layer in layers.items():
            row = []
            for width in WIDTHS:
                hqq.round_to_nearest(model, name, width)
                row.append(model.get_submodule(name))
                model.set_submodule(name, layer)
            self._packed.append(row)
        weights = [layer.weight.numel() for layer in layers.values()]  # type: ignore[operator]
        held = [[8.0 * sum(b.nbytes for b in packed.buffers()) for packed in row] for row in self._packed]
        self._cost = torch.tensor(held, dtype=torch.float64) / sum(weights)

    def bits(self, genes: Int[Tensor, "choice layer"]) -> Float[Tensor, " choice"]:
        """The average bits that packed layers hold for a weight."""
        return self._cost.expand(len(genes), -1, -1).gather(2, genes[:, :, None])[:, :, 0].sum(1)

    def loss(self, genes: Sequence[int]) -> float:
        """The mean divergence from the dense model's logits."""
        for name, gene, row in zip(self.names, genes, self._packed, strict=True):
            self._model.set_submodule(name, row[gene])
        parts = [divergence(dense, self._logits(b)) for dense, b in zip(self._dense, self._batches, strict=True)]
        return float(torch.cat(parts).mean())

    def take_back(self) -> None:
        """Puts the plain layers in their places."""
        for name, layer in self._plain.items():
            self._model.set_submodule(name, layer)

    def _logits(self, batch: Int[Tensor, "batch token"]) -> Float[Tensor, "position word"]:
        logits: Tensor = self._model(input_ids=batch, use_cache=False).logits
        return logits[:, :-1].flatten(0, 1)


class Archive:
    """Choices of widths and what they were measured to lose, kept where the calibration keeps unfinished work."""

    def __init__(self, proxies: Proxies, calibration: Calibration, total: int) -> None:
        self._proxies, self._calibration, self._total = proxies, calibration, total
        self.genes: Int[Tensor, "choice layer"] = torch.zeros(0, len(proxies.names), dtype=torch.long)
        self.losses: Float[Tensor, " choice"] = torch.zeros(0, dtype=torch.float64)

    def measure(self, genes: Int[Tensor, "choice layer"], key: str) -> None:
        """Measures choices and adds them, or adds what an earlier try measured."""
        if (kept := self.kept(key)) is not None:
            self.add(*kept)
            return
        losses: list[float] = []
        for row in genes.tolist():
            self._calibration.told(len(self.losses) + len(losses), self._total)
            losses.append(self._proxies.loss(row))
        measured = torch.tensor(losses, dtype=torch.float64)
        self._calibration.remember(key, {"genes": genes, "losses": measured})
        self.add(genes, measured)

    def kept(self, key: str) -> tuple[Tensor, Tensor] | None:
        """What an earlier try measured."""
        found = self._calibration.recall(key)
        return None if found is None else (found["genes"], found["losses"])

    def add(self, genes: Int[Tensor, "choice layer"], losses: Float[Tensor, " choice"]) -> None:
        """Adds what was measured."""
        self.genes, self.losses = torch.cat([self.genes, genes]), torch.cat([self.losses, losses])


def divergence(
    dense: Float[Tensor, "position word"], other: Float[Tensor, "position word"], at_once: int = 256
) -> Float[Tensor, " position"]:
    """The Jensen-Shannon divergence of the distributions that two logits stand for, in nats."""
    parts = []
    for first, second in zip(torch.split(dense, at_once), torch.split(other, at_once), strict=True):
        p, q = first.float().log_softmax(-1), second.float().log_softmax(-1)
        mean = (0.5 * (p.exp() + q.exp())).clamp(min=_EPS).log()
        parts.append(0.5 * ((p.exp() * (p - mean)).sum(-1) + (q.exp() * (q - mean)).sum(-1)))
    return torch.cat(parts)


def pinned_layers(sensitivity: Float[Tensor, " layer"], threshold: float) -> Tensor:
    """The layers that lose more than so many times what the middle one loses."""
    return sensitivity > threshold * sensitivity.quantile(0.5)


def not_dominated(losses: Float[Tensor, " choice"], bits: Float[Tensor, " choice"]) -> Tensor:
    """The choices than which none is as good in both and better in one."""
    no_worse = (losses[:, None] <= losses) & (bits[:, None] <= bits)
    better = (losses[:, None] < losses) | (bits[:, None] < bits)
    return ~(no_worse & better).any(0)
