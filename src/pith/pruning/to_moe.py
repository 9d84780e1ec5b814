"""ToMoE: every MLP becomes experts that share its channels, and a router that sends each token to one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pith.core import ModelError, Paper, param
from pith.pruning.routed import RoutedMLP
from pith.weights import Calibration, Pruner, block_name, blocks, parts, set_bias, set_weight, weight_of

TEMPERATURE, OFFSET = 0.4, 3.0
"""Of the sigmoid and softmax that choose, and how far a channel is kept before anything is learned."""

_STATE, _INPUT = 128, 32
_SOFT = 1e-3
_KEPT_EVERY = 100


@dataclass(frozen=True, kw_only=True)
class ToMoE(Pruner):
    """Turn every MLP into experts, each a part of its channels, of which a learned router chooses one for each token.

        expert = one-hot(argmax router x)       mask = [sigmoid((decode(state_expert) + 3) / 0.4) > 1/2]
        MLP(x) = down (mask * act(gate x) * up x)
        loss = 2 KL(dense || routed) + 16 |log(share / active)| + 3 mean |log covered| + balance
        share: the widest expert's channels of all layers, of all;  covered: channels in any expert, of all
        balance = experts * sum_e (share of tokens sent to e) (mean probability of e)              (sections 3.2 to 3.4)

    The states of the experts come from a small recurrent network over the layers (the hypernetwork). It, the routers
    and the decoders are learned, with noise; the model's weights are not. What is left is deterministic. All experts of
    a layer have the same width, and over the layers they have exactly the share `active`. Channels in no expert are cut
    away; the others are stored once. A forward gathers the weights of the experts that its tokens chose, which for
    single tokens is slower than the dense MLP.

    Deviates: MLPs only: the paper also masks the dimensions of queries and keys, and of values for each token, and
    counts them in its share; attention stays dense here, and `active` is the MLPs' share. `steps` are few beside the
    authors' 20000, whose rate is 1e-3 at a batch of one sequence of 2048 tokens. An expert keeps its best channels by
    logits, as many as its layer's share of the total allows; the authors' code draws the masks with noise once more,
    and at inference too. The balance is that of the paper; their code divides it by the number of experts. Terms of the
    loss that their code averages over MLPs and attention are averaged over MLPs.
    """

    paper: ClassVar[Paper] = Paper(
        "2501.15316",
        "ToMoE: Converting Dense Large Language Models to Mixture-of-Experts through Dynamic Structural Pruning",
        "Shangqian Gao, Ting Hua, Reza Shirkavand, Chi-Heng Lin, Zheng Tang, Zhengao Li, Longge Yuan, Fangyi Li, "
        "Zeyu Zhang, Alireza Ganjdanesh, Lou Qian, Xu Jie, Yen-Chang Hsu",
        2025,
        "gaosh/ToMoE",
    )
    trains: ClassVar[bool] = True

    active: float = param(
        0.5, "share of an MLP's channels that a token reads, over all layers", ge=0.01, le=1.0, sweep=(0.3, 0.9)
    )
    experts: int = param(8, "of every MLP", ge=1)
    steps: int = param(300, "of training", ge=0)
    rate: float = param(3e-3, "of training (AdamW)", ge=0)
    distill: float = param(2.0, "weight of the divergence from the dense model", ge=0)
    resource: float = param(16.0, "weight of how far the active share is from the one wanted", ge=0)
    cover: float = param(3.0, "weight of the channels that no expert has", ge=0)
    balance: float = param(1.0, "weight of uneven use of experts", ge=0)
    seed: int = param(0, "of all that is random", ge=0)

    def change(self, model: Any, calibration: Calibration) -> None:
        """Learns, and puts a routed MLP in the place of every other."""
        names = [f"{block_name(model, index)}.mlp" for index in range(len(blocks(model)))]
        dense = [_mlp(block) for block in blocks(model)]
        widths = [mlp.up_proj.out_features for mlp in dense]
        if self.experts > (most := min(widths)):
            raise ModelError(f"{self}: an MLP has only {most} channels; allowed are at most {most} experts")
        hidden = dense[0].up_proj.in_features
        net = Hypernetwork(hidden, widths, self.experts, self.seed).to(model.device)
        masked = [MaskedMLP(mlp, layer) for mlp, layer in zip(dense, net.layers, strict=True)]
        with torch.enable_grad():
            self._train(model, calibration, net, dict(zip(names, zip(dense, masked, strict=True), strict=True)))
        logits = net.logits()
        counts = widths_within([one.detach() for one in logits], self.active)
        for name, mlp, one, count, layer in zip(names, dense, logits, counts, net.layers, strict=True):
            model.set_submodule(name, _routed(mlp, one.detach(), count, layer.router.detach()))  # type: ignore[operator]
        self.warn("a forward gathers the weights of experts, which for single tokens is slower than the dense MLP")

    def _train(
        self, model: Any, calibration: Calibration, net: Hypernetwork, mlps: dict[str, tuple[Any, MaskedMLP]]
    ) -> None:
        """Learns the masks and the routers."""
        learned = [parameter for parameter in net.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=self.rate, weight_decay=0.05)
        for step in range(begun(calibration, net, optimizer, self.steps), self.steps):
            calibration.told(step, self.steps)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            batch = calibration.tokens[step % len(calibration.tokens)][None].to(model.device)
            for name, (dense, _) in mlps.items():
                model.set_submodule(name, dense)
            with torch.no_grad():
                wanted = model(input_ids=batch, use_cache=False).logits.float().log_softmax(-1)
            states = net.states()
            for (name, (_, masked)), state in zip(mlps.items(), states, strict=True):
                masked.state, masked.generator = state, generator
                model.set_submodule(name, masked)
            found = model(input_ids=batch, use_cache=False).logits.float().log_softmax(-1)
            loss = self.distill * (wanted.exp() * (wanted - found)).sum(-1).mean()
            masks = [hard_sigmoid(one, generator) for one in net.logits(states)]
            loss = loss + self.resource * away(active_of(masks), self.active)
            loss = loss + self.cover * torch.stack([away(covered(mask).mean(), 1.0) for mask in masks]).mean()
            loss = loss + self.balance * torch.stack([unevenness(m.choice, m.chances) for _, m in mlps.values()]).mean()
            for parameter, gradient in zip(learned, torch.autograd.grad(loss, learned), strict=True):
                parameter.grad = gradient
            optimizer.step()
            if (step + 1) % _KEPT_EVERY == 0:
                keep(calibration, net, optimizer, step + 1)
        calibration.told(self.steps, self.steps)


class Hypernetwork(nn.Module):
    """States of all experts, from fixed random inputs by a recurrent network over the layers; and what reads them.

    Args:
        hidden: of the model.
        widths: the channels of every MLP.
        experts: of each.
        seed: of the inputs and of the first weights.
    """

    def __init__(self, hidden: int, widths: Sequence[int], experts: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the layers' own beginnings are drawn from the global generator
            torch.default_generator.manual_seed(seed)
            self.register_buffer("inputs", torch.randn(len(widths), experts, _INPUT))
            self.recurrent = nn.GRU(_INPUT, _STATE // 2, bidirectional=True)
            self.layers = nn.ModuleList(ExpertLayer(hidden, width, experts) for width in widths)

    def states(self) -> Float[Tensor, "layer expert state"]:
        """What the experts' masks are made of."""
        found: Tensor = self.recurrent(self.inputs)[0]
        return found

    def logits(
        self, states: Float[Tensor, "layer expert state"] | None = None
    ) -> list[Float[Tensor, "expert channel"]]:
        """The logits of every expert's channels, layer by layer."""
        states = self.states() if states is None else states
        return [layer.decode(state) for layer, state in zip(self.layers, states, strict=True)]  # type: ignore[operator]


class ExpertLayer(nn.Module):
    """The router of one MLP, and what makes logits of channels from the state of an expert."""

    def __init__(self, hidden: int, width: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Parameter(nn.Linear(hidden, experts, bias=False).weight.detach())
        self.norm, self.decoder = nn.LayerNorm(_STATE), nn.Linear(_STATE, width, bias=False)

    def decode(self, state: Float[Tensor, "... state"]) -> Float[Tensor, "... channel"]:
        """Logits of channels; the mask of one is open where its logit is above -3."""
        logits: Tensor = self.decoder(F.gelu(self.norm(state)))
        return logits


class MaskedMLP(nn.Module):
    """An MLP while masks and router are learned: every channel is computed, and some are set to 0.

    Attributes:
        state: of the experts, in this step.
        generator: of the noise.
        choice, chances: the expert of each token as one-hot, with gradients; and how likely each was.
    """

    def __init__(self, dense: Any, layer: nn.Module) -> None:
        super().__init__()
        self.dense, self.layer = dense, layer
        self.state: Float[Tensor, "expert state"] = torch.zeros(0)
        self.generator: torch.Generator | None = None
        self.choice = self.chances = torch.zeros(0)

    def forward(self, x: Float[Tensor, "batch token hidden"]) -> Float[Tensor, "batch token hidden"]:
        """The MLP under the masks of the tokens' experts, drawn anew for every token."""
        layer: Any = self.layer
        logits = F.linear(x.float(), layer.router)
        self.choice, self.chances = hard_softmax(logits, self.generator)
        open_channels = hard_sigmoid(layer.decode(self.choice @ self.state), self.generator).to(x.dtype)
        dense = self.dense
        inner = dense.up_proj(x)
        inner = dense.act_fn(dense.gate_proj(x)) * inner if hasattr(dense, "gate_proj") else dense.act_fn(inner)
        result: Tensor = dense.down_proj(inner * open_channels)
        return result


def hard_sigmoid(logits: Float[Tensor, "*any"], generator: torch.Generator | None = None) -> Float[Tensor, "*any"]:
    """0 or 1, with the gradient of sigmoid((logit + noise + 3) / 0.4); the noise is Gumbel's, or none."""
    soft = torch.sigmoid((logits + _gumbel(logits, generator) + OFFSET) / TEMPERATURE)
    return (soft.round() - soft).detach() + soft


def hard_softmax(
    logits: Float[Tensor, "... expert"], generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "... expert"], Float[Tensor, "... expert"]]:
    """The largest as one-hot, with the gradient of softmax((logit + noise) / 0.4), and that softmax."""
    soft = torch.softmax((logits + _gumbel(logits, generator)) / TEMPERATURE, dim=-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
    return (hard - soft).detach() + soft, soft


def _gumbel(like: Float[Tensor, "*any"], generator: torch.Generator | None) -> Float[Tensor, "*any"]:
    if generator is None:
        return torch.zeros_like(like)
    return -torch.empty(like.shape).exponential_(generator=generator).log().to(like)


def away(share: Float[Tensor, ""], wanted: float) -> Float[Tensor, ""]:
    """|log(share / wanted)|, finite at 0."""
    return ((share + _SOFT) / (wanted + _SOFT)).log().abs()


def covered(mask: Float[Tensor, "expert channel"]) -> Float[Tensor, " channel"]:
    """Whether any expert has the channel."""
    return 1 - (1 - mask).prod(0)


def active_of(masks: Sequence[Float[Tensor, "expert channel"]]) -> Float[Tensor, ""]:
    """The share of channels that the widest experts have, over all layers."""
    widest = torch.stack([mask.sum(-1).amax() for mask in masks])
    return widest.sum() / sum(mask.shape[-1] for mask in masks)


def unevenness(choice: Float[Tensor, "... expert"], chances: Float[Tensor, "... expert"]) -> Float[Tensor, ""]:
    """1 where all experts get equally many tokens, up to the number of experts where one gets all."""
    flat, likely = choice.detach().flatten(0, -2).mean(0), chances.flatten(0, -2).mean(0)
    return len(flat) * (flat * likely).sum()


def widths_within(logits: Sequence[Float[Tensor, "expert channel"]], active: float) -> list[int]:
    """How wide the experts of every layer are, together `active` of all channels: the widths of one common threshold.

    The k-th channel of a layer is worth what the best of its experts would lose with it.
    """
    worth = [one.sort(dim=-1, descending=True).values.amax(0) for one in logits]
    worth = [torch.cat([torch.full_like(one[:1], torch.inf), one[1:]]) for one in worth]  # no layer without any
    layer = torch.cat([torch.full((len(one),), index) for index, one in enumerate(worth)])
    total = max(round(active * len(layer)), len(logits))
    best = torch.cat(worth).argsort(descending=True, stable=True)[:total].cpu()
    return torch.bincount(layer[best], minlength=len(logits)).tolist()


def begun(calibration: Calibration, net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> int:
    """Puts back what an earlier try learned; says how many steps it had done."""
    for step in range(steps - steps % _KEPT_EVERY, 0, -_KEPT_EVERY):
        if (kept := calibration.recall(f"step-{step}")) is not None:
            state = optimizer.state_dict()
            state["state"] = {
                index: {name: kept[f"optimizer.{index}.{name}"] for name in ("step", "exp_avg", "exp_avg_sq")}
                for index in range(len(state["param_groups"][0]["params"]))
            }
            optimizer.load_state_dict(state)
            net.load_state_dict({name[4:]: tensor for name, tensor in kept.items() if name.startswith("net.")})
            return step
    return 0


def keep(calibration: Calibration, net: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Keeps what was learned up to a step."""
    moments = optimizer.state_dict()["state"]
    kept = {f"optimizer.{index}.{name}": tensor for index, one in moments.items() for name, tensor in one.items()}
    calibration.remember(f"step-{step}", kept | {f"net.{name}": tensor for name, tensor in net.state_dict().items()})


def _mlp(block: nn.Module) -> Any:
    mlp = parts(block).mlp
    if not callable(getattr(mlp, "act_fn", None)) or isinstance(mlp, RoutedMLP):
        raise ModelError(f"the {type(mlp).__name__} of a {type(block).__name__} has no act_fn; allowed is a plain MLP")
    return mlp


def _routed(
    dense: Any, logits: Float[Tensor, "expert channel"], width: int, router: Float[Tensor, "expert hidden"]
) -> RoutedMLP:
    """The routed MLP: experts of the best channels by logits, over the channels that any of them has."""
    best = logits.topk(width, dim=-1).indices.sort(dim=-1).values
    union: Int[Tensor, " channel"] = torch.unique(best)
    for name in ("gate_proj", "up_proj"):
        if (layer := getattr(dense, name, None)) is not None:
            bias = layer.bias
            set_weight(layer, weight_of(layer)[union])
            if bias is not None:
                set_bias(layer, bias[union])
    set_weight(dense.down_proj, weight_of(dense.down_proj)[:, union])
    routed = RoutedMLP(dense, best.shape[0], best.shape[1], router.dtype)
    routed.router = nn.Parameter(router.to(dense.down_proj.weight.dtype), requires_grad=False)
    routed.channels = torch.searchsorted(union, best).to(torch.int32)
    return routed
