"""BitDistiller: a quantised model learns from the model that it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from pith.core import Paper, Patterns, param
from pith.weights import Calibration, Grid, WeightQuantizer, pack_linear, set_weight, walk, weight_of
from pith.weights.clip import clipped, makes_logits
from pith.weights.duplicate import duplicate
from pith.weights.hessian import moments
from pith.weights.quantizer import Bits

Fit = Callable[[Float[Tensor, "out in"]], Grid]

_AT_ONCE = 64
"""Texts that are sampled at once."""


@dataclass(frozen=True, kw_only=True)
class BitDistiller(WeightQuantizer):
    """Cut weights, then train them to give what the dense model gives once they are rounded.

        W <- clamp(W, a min W, b max W) in every group: the a, b of 1, 0.95, ... 0.55 with the least
             || (Q(W') - W) x ||^2                                                                     (section 3.1)
        loss = gamma KL(P_student || P_teacher) + (1 - gamma) KL(P_teacher || P_student)               (section 3.2)
        gamma = mean over the texts of P_teacher(token)                                                (section 3.2)

    In every forward of the training weights stand at the nearest values of their grids; gradients pass the rounding as
    if it were not there, and reach the grid's scale through the least and the greatest weight. All parameters are
    trained. The texts are the teacher's own: it goes on from the beginnings of the calibration's.

    What is packed are the codes of the trained weights, from the same grids. Queries and keys are not cut. An output
    layer that is not skipped is trained and packed too; one that is tied to the embedding is rounded at the end.
    Training is kept every tenth of the steps, where the calibration keeps unfinished work. Beside the model it holds
    four numbers in float32 for each of its parameters.

    Deviates: `steps` of `batch` sequences, so few that the built-in model takes about two minutes, and a learning rate
    that suits them; the paper trains a model of 7 B on 8000 texts for 4 epochs at 8e-6. One whole-number grid at all
    widths, as the paper has for 2 bits; its 3 bits are NF3, which no layer here stores. gamma is the paper's; the
    authors' code takes the mean of the largest probability, over one batch more than it divides by. Clipping looks at
    all tokens, and 0 is always in a group's range. Gradients are cut to a norm of 1, which is their trainer's default.
    No fifth of the texts is held out. Samples do not end where a text does; ties round to even. With 8
    bits there is one symmetric grid a row.
    """

    paper: ClassVar[Paper] = Paper(
        "2402.10631",
        "BitDistiller: Unleashing the Potential of Sub-4-Bit LLMs via Self-Distillation",
        "Dayou Du, Yijia Zhang, Shijie Cao, Jiaqi Guo, Ting Cao, Xiaowen Chu, Ningyi Xu",
        2024,
        "DD-DuDa/BitDistiller",
    )
    trains: ClassVar[bool] = True
    symmetric: ClassVar[bool] = False  # type: ignore[misc]  # no parameter: both sides are cut apart

    bits: Bits | Patterns = param(
        2, 'of a weight; by name pattern too, as {"*.down_proj": 3, "*": 2}', sweep=(2, 3, 4, 8)
    )
    steps: int = param(50, "updates of the weights; with 0 they are only cut", ge=0)
    batch: int = param(4, "sequences of an update", ge=1)
    learning_rate: float = param(1e-3, "of AdamW, constant", ge=0)
    gamma: float | None = param(None, "weight of KL(student || teacher); none is the teacher's confidence", ge=0, le=1)
    texts: Literal["sampled", "calibration"] = param(
        "sampled", "what is learned from: the teacher's texts, or those read"
    )
    prompt: int = param(64, "tokens of a sampled text that the calibration gives", ge=1)
    temperature: float = param(0.7, "of samples", ge=0.01)
    seed: int = param(0, "of samples, and of their order", ge=0)

    def change(self, model: Any, calibration: Calibration) -> None:
        """Cuts block by block, samples, trains and packs."""
        chosen = self.chosen(model)
        teacher = duplicate(model)
        self._cut(model, calibration, chosen)
        if not self.steps:
            for name, bits in chosen.items():
                self.round_to_nearest(model, name, bits)
            return
        texts = self._texts(teacher, calibration)
        gamma = confidence(teacher, texts, self.batch) if self.gamma is None else self.gamma
        student = _Student(model, {name: self._fit(bits, model.dtype) for name, bits in chosen.items()})
        self._train(student, teacher, texts, gamma, calibration)
        student.settle()

    def _cut(self, model: Any, calibration: Calibration, chosen: dict[str, int]) -> None:
        """Gives the layers of every block their cut weights; blocks read what the dense ones before them give."""
        unreached: list[str] = []
        for stage in walk(model, calibration):
            own = [name for name in chosen if name.startswith(f"{stage.name}.") and not makes_logits(name)]
            layers = {name: model.get_submodule(name) for name in own}
            read = moments(stage, layers)
            stage.hand_on()
            for name, layer in layers.items():
                if read[name].tokens:
                    fit = self._fit(chosen[name], model.dtype)
                    set_weight(layer, clipped(weight_of(layer), read[name].matrix, fit, "apart"))
                else:
                    unreached.append(name)
        self.warn_unreached(unreached, "they are not cut, and learn from what texts the model samples")

    def _texts(self, teacher: Any, calibration: Calibration) -> Int[Tensor, "sequence token"]:
        """What is learned from; samples are kept."""
        if self.texts == "calibration":
            return calibration.tokens
        kept = calibration.recall("texts")
        if kept is None:
            generator = torch.Generator().manual_seed(self.seed)
            parts = [
                sampled(teacher, rows[:, : self.prompt], rows.shape[1], self.temperature, generator)
                for rows in torch.split(calibration.tokens, _AT_ONCE)
            ]
            kept = {"tokens": torch.cat(parts)}
            calibration.remember("texts", kept)
        return kept["tokens"]

    def _train(
        self,
        student: _Student,
        teacher: Any,
        texts: Int[Tensor, "sequence token"],
        gamma: float,
        calibration: Calibration,
    ) -> None:
        """Updates the student so many times, from where an earlier try was stopped."""
        generator = torch.Generator().manual_seed(self.seed)
        count = self.steps * self.batch
        orders = [torch.randperm(len(texts), generator=generator) for _ in range(-(-count // len(texts)))]
        rows = torch.cat(orders)[:count].view(self.steps, self.batch)
        optimiser = torch.optim.AdamW(student.weights.values(), lr=self.learning_rate, weight_decay=0.0)
        begin = student.restore(optimiser, calibration.recall("training"))
        for step in range(begin, self.steps):
            calibration.told(step, self.steps)
            batch = texts[rows[step]].to(teacher.device)
            target = teacher(input_ids=batch, use_cache=False).logits
            with torch.enable_grad():
                loss = cakld(student.logits(batch), target, gamma).sum() / self.batch
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(student.weights.values(), 1.0)
            optimiser.step()
            if (step + 1) % max(self.steps // 10, 1) == 0:
                calibration.remember("training", student.progress(optimiser, step + 1))
        calibration.told(self.steps, self.steps)

    def _fit(self, bits: int, dtype: torch.dtype) -> Fit:
        return lambda weight: self.grid(weight, bits).stored_as(dtype)


class _Student:
    """A model whose parameters are trained, some of them as they are once they are rounded.

    Attributes:
        model: the model; it stays as it is until `settle`.
        weights: what is trained, by the parameters' names, in float32.
    """

    def __init__(self, model: Any, fits: dict[str, Fit]) -> None:
        self.model, self._fits = model, fits
        self.weights = {
            name: nn.Parameter(held.detach().float().clone(memory_format=torch.contiguous_format))
            for name, held in model.named_parameters()
            if held.is_floating_point()
        }

    def logits(self, tokens: Int[Tensor, "batch token"]) -> Float[Tensor, "batch token word"]:
        """What the model gives with its parameters as they are now, rounded where they will be."""
        tensors = {name: self._as_rounded(name, weight).to(self.model.dtype) for name, weight in self.weights.items()}
        called: Any = functional_call(self.model, tensors, (), {"input_ids": tokens, "use_cache": False})
        logits: Tensor = called.logits
        return logits

    def settle(self) -> None:
        """Gives the model what was learned, packed where it is rounded."""
        new: dict[int, nn.Parameter] = {}
        for name, held in self.model.named_parameters():
            if name in self.weights:
                trained = self.weights[name].detach().to(held.dtype)
                new[id(held)] = nn.Parameter(trained, requires_grad=held.requires_grad)
        for module in self.model.modules():
            for key, held in module._parameters.items():
                if id(held) in new:
                    module._parameters[key] = new[id(held)]
        for name, fit in self._fits.items():
            layer, learned = self.model.get_submodule(name), self.weights.get(f"{name}.weight")
            weight = weight_of(layer).float() if learned is None else turned(layer, learned.detach())
            grid = fit(weight)
            pack_linear(self.model, name, grid, grid.codes(weight))

    def progress(self, optimiser: torch.optim.Optimizer, steps: int) -> dict[str, Tensor]:
        """All that the next step depends on."""
        kept = {"steps": torch.tensor(steps)}
        for name, weight in self.weights.items():
            kept[f"weight {name}"] = weight
            kept |= {f"{key} {name}": value for key, value in optimiser.state[weight].items()}
        return kept

    def restore(self, optimiser: torch.optim.Optimizer, kept: dict[str, Tensor] | None) -> int:
        """Puts back what `progress` gave, and says how many steps were done."""
        if kept is None:
            return 0
        for name, weight in self.weights.items():
            weight.data = kept[f"weight {name}"].to(weight.device)
            state = {key: kept[f"{key} {name}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{key} {name}" in kept}
            if state:
                optimiser.state[weight] = {
                    key: value.to("cpu" if key == "step" else weight.device) for key, value in state.items()
                }
        return int(kept["steps"])

    def _as_rounded(self, name: str, weight: Tensor) -> Tensor:
        layer, _, kind = name.rpartition(".")
        if kind != "weight" or layer not in self._fits:
            return weight
        plain = turned(self.model.get_submodule(layer), weight)
        return turned(self.model.get_submodule(layer), straight_through(plain, self._fits[layer](plain)))


def straight_through(weight: Float[Tensor, "out in"], grid: Grid) -> Float[Tensor, "out in"]:
    """The nearest values of the grid; gradients pass the rounding, and reach the scale, but not the zero."""
    scale, zero = grid.spread(weight.shape[1])
    steps = weight / scale
    codes = steps + (steps.round() - steps).detach() + zero
    return (codes.clamp(0, grid.largest) - zero) * scale


def cakld(
    student: Float[Tensor, "batch token word"], teacher: Float[Tensor, "batch token word"], gamma: float
) -> Float[Tensor, "batch token"]:
    """gamma KL(student || teacher) + (1 - gamma) KL(teacher || student) of every token, from logits."""
    own, target = student.float().log_softmax(-1), teacher.float().log_softmax(-1)
    apart = own - target
    return (gamma * own.exp() * apart - (1 - gamma) * target.exp() * apart).sum(-1)


def confidence(teacher: Any, texts: Int[Tensor, "sequence token"], batch: int) -> float:
    """The mean probability that the model gives the tokens of texts, but for the first of each; `batch` at once."""
    total = count = 0.0
    for rows in torch.split(texts, batch):
        tokens = rows.to(teacher.device)
        logits = teacher(input_ids=tokens, use_cache=False).logits[:, :-1]
        likely = logits.float().log_softmax(-1).gather(-1, tokens[:, 1:, None])
        total, count = total + float(likely.exp().sum()), count + likely.numel()
    return total / max(count, 1.0)


def sampled(
    model: Any, prompt: Int[Tensor, "sequence prompt"], length: int, temperature: float, generator: torch.Generator
) -> Int[Tensor, "sequence token"]:
    """Texts of that length in all, which the model goes on with."""
    tokens, cache, new = prompt, None, prompt
    while tokens.shape[1] < length:
        given = model(input_ids=new.to(model.device), past_key_values=cache, use_cache=True)
        cache = given.past_key_values
        likely = (given.logits[:, -1].float().cpu() / temperature).softmax(-1)
        new = torch.multinomial(likely, 1, generator=generator)
        tokens = torch.cat([tokens, new], dim=1)
    return tokens


def turned(layer: nn.Module, weight: Tensor) -> Tensor:
    """A weight as [out, in], or one that is so as the layer stores it."""
    return weight.T if isinstance(layer, Conv1D) else weight
