"""LLM Surgeon: rows, columns or single weights are cut out where curvature says that the loss grows least."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pith.core import Paper, ParameterError, param
from pith.pruning.cutting import cut_dead
from pith.pruning.kronecker import Layer, structured_threshold, threshold
from pith.weights import (
    Calibration,
    Pruner,
    block_linears,
    fuse_experts,
    set_bias,
    set_weight,
    split_experts,
    weight_of,
)
from pith.weights.sparsity import least_of_groups

Curvature = tuple[Float[Tensor, "_ _"], Float[Tensor, "_ _"]]
"""A, over the inputs, and G, over the outputs."""


@dataclass(frozen=True, kw_only=True)
class LLMSurgeon(Pruner):
    """Cut out what costs least by the curvature of the loss, over all layers at once, and let the rest make up for it.

        F = G (x) A, A = 1/T sum a a^T, G = 1/T sum g g^T          a: inputs, g: gradients of outputs (section 3.1)
        cost of a weight = w_rc^2 / (2 [G^-1]_rr [A^-1]_cc)                                           (section 3.2)
        cost of a row    = w_r A w_r^T / (2 [G^-1]_rr), of a column = w_c^T G w_c / (2 [A^-1]_cc)
        the cheapest of all layers go, so that sparsity * shot / shots of the weights are gone   (sections 3.3, 3.5)
        rows R:    W -= G^-1 E_R (E_R^T G^-1 E_R)^-1 W_R                                              (section 3.4)
        columns C: W -= W_C (E_C^T A^-1 E_C)^-1 E_C^T A^-1
        weights Q: vec W -= F^-1 E_Q (E_Q^T F^-1 E_Q)^-1 w_Q

    A row of zeros makes nothing smaller by itself. Where a channel of an MLP gives nothing any more, or nobody reads
    it, its rows and its column are taken out together, and so is a key-value head with its queries; this changes no
    output. All other zeros are stored: what is stored shrinks by another share than `sparsity`, which counts the zeros
    in the linear layers of the blocks before anything is taken out. With another pattern nothing is taken out.

    Needs gradients: the model reads the calibration forwards and backwards once a shot, and takes as much memory as
    training on a batch does, beside A and G of all layers in float32. Embeddings, the head and norms stay as they are.

    Deviates: 5 shots instead of 40, so that it ends within minutes on a small model. Rows and columns are removed as
    one set, whose exact solution is one after the other; the code's default adds up two independent solutions. At most
    `together` = 500 weights are removed at once instead of 2000. What is removed never exceeds the share; of single
    weights the code removes one more. The code's rescaling of A and G to equal norms changes neither cost nor solution,
    and is left out. The low-rank training between shots, an extra of the paper's, is not here.
    """

    paper: ClassVar[Paper] = Paper(
        "2312.17244",
        "The LLM Surgeon",
        "Tycho F. A. van der Ouderaa, Markus Nagel, Mart van Baalen, Yuki M. Asano, Tijmen Blankevoort",
        2023,
        "Qualcomm-AI-research/llm-surgeon",
    )

    sparsity: float = param(
        0.2, "share of the weights of the blocks' linear layers that is removed", ge=0, le=0.95, sweep=(0.5, 0.1)
    )
    pattern: Literal["structured", "unstructured", "2:4"] = param(
        "structured", "what is removed: whole rows and columns, single weights, or 2 of every 4 inputs of a row"
    )
    shots: int = param(5, "steps in which it is done; the curvature is taken anew for each", ge=1)
    damping_a: float = param(0.01, "added to the diagonal of A, as a share of its mean", ge=0)
    damping_g: float = param(
        0.01, "added to the diagonal of G, as a share of its mean; the paper's is 0.1 unless structured", ge=0
    )
    together: int = param(500, "single weights that are removed at once, in whole rows", ge=1)
    skip: str | tuple[str, ...] = param("", "name patterns of layers that stay as they are")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern == "2:4" and self.sparsity > 0.5:
            raise ParameterError(
                f"{self.name}: sparsity={self.sparsity} is not allowed with pattern='2:4'; allowed is at most 0.5"
            )

    def change(self, model: Any, calibration: Calibration) -> None:
        """Prunes shot by shot, and takes out what is dead at the end."""
        split_experts(model, self.skip)
        chosen = block_linears(model, self.skip)
        unreached: list[str] = []
        for shot in range(1, self.shots + 1):
            kept = calibration.recall(f"shot-{shot}")
            if kept is None:
                found = self._curvature(model, chosen, calibration, shot - 1)
                unreached = [name for name in chosen if name not in found]
                kept = self._shot(chosen, found, self.sparsity * shot / self.shots)
                calibration.remember(f"shot-{shot}", kept)
            for name, weight in kept.items():
                _put(chosen[name], weight)
        self.warn_unreached(unreached, "left as they are")
        if self.pattern == "structured":
            cut_dead(model)
        fuse_experts(model)

    def _shot(
        self, chosen: Mapping[str, nn.Module], found: Mapping[str, Curvature], sparsity: float
    ) -> dict[str, Float[Tensor, "_ _"]]:
        """The weights after one shot, each with its bias as last column."""
        costs: dict[str, Any] = {}
        for name, (a, g) in found.items():
            layer = self._layer(chosen[name], a, g)
            if self.pattern == "structured":
                costs[name] = layer.row_costs(), layer.column_costs()
            else:
                costs[name] = layer.element_costs()
        masks = self._removed(chosen, costs, sparsity)
        after: dict[str, Tensor] = {}
        for name, (a, g) in found.items():
            layer = self._layer(chosen[name], a, g)
            mask = masks[name]
            new = layer.without(*mask) if isinstance(mask, tuple) else layer.without_elements(mask, self.together)
            after[name] = new.float()
        return after

    def _removed(self, chosen: Mapping[str, nn.Module], costs: Mapping[str, Any], sparsity: float) -> dict[str, Any]:
        """Of each layer which rows and columns are removed, or which weights."""
        if self.pattern == "structured":
            most = structured_threshold(list(costs.values()), sparsity)
            return {name: (rows <= most, columns <= most) for name, (rows, columns) in costs.items()}
        if self.pattern == "unstructured":
            most = threshold([one.flatten() for one in costs.values()], sparsity)
            return {name: one <= most for name, one in costs.items()}
        inputs = {name: weight_of(chosen[name]).shape[1] for name in costs}
        least = {name: least_of_groups(one[:, : inputs[name]], 2, 4) for name, one in costs.items()}
        groups = {
            name: (one[:, : inputs[name]] * least[name]).unflatten(1, (-1, 4)).sum(dim=-1)
            for name, one in costs.items()
        }
        most = threshold([one.flatten() for one in groups.values()], 2 * sparsity)
        return {name: _with_bias(least[name] & _spread(groups[name] <= most), one) for name, one in costs.items()}

    def _layer(self, linear: nn.Module, a: Float[Tensor, "in in"], g: Float[Tensor, "out out"]) -> Layer:
        return Layer.of(_whole(linear), a, g, (self.damping_a, self.damping_g))

    def _curvature(
        self, model: Any, chosen: Mapping[str, nn.Module], calibration: Calibration, shot: int
    ) -> dict[str, Curvature]:
        """A and G of every layer that a token of the calibration reached."""
        sums: dict[str, tuple[Tensor, Tensor, int]] = {}
        batches = calibration.batches
        for done, batch in enumerate(batches):
            calibration.told(shot * len(batches) + done, self.shots * len(batches))
            for name, inputs, gradients in gradients_of(model, chosen, batch.to(model.device)):
                if chosen[name].bias is not None:
                    inputs = F.pad(inputs, (0, 1), value=1.0)
                a, g, count = sums.get(name, (0, 0, 0))
                sums[name] = a + inputs.T @ inputs, g + gradients.T @ gradients, count + len(inputs)
        return {name: (a / count, g / count) for name, (a, g, count) in sums.items() if count}


def gradients_of(
    model: Any, chosen: Mapping[str, nn.Module], tokens: Int[Tensor, "batch token"]
) -> list[tuple[str, Float[Tensor, "_ _"], Float[Tensor, "_ _"]]]:
    """What each layer read, and the gradients of the summed loss in what it gave, each token a row, in float32.

    No parameter gets a gradient, and none needs to ask for one.
    """
    held: list[tuple[str, Tensor, Tensor]] = []

    def holder(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            held.append((name, args[0].detach(), output))

        return hook

    def leaf(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output.detach().requires_grad_()

    with ExitStack() as hooks, torch.enable_grad():
        hooks.callback(model.get_input_embeddings().register_forward_hook(leaf).remove)
        for name, linear in chosen.items():
            hooks.callback(linear.register_forward_hook(holder(name)).remove)
        logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="sum")
        gradients = torch.autograd.grad(loss, [output for _, _, output in held], allow_unused=True)
    return [
        (name, inputs.flatten(0, -2).float(), gradient.flatten(0, -2).float())
        for (name, inputs, _), gradient in zip(held, gradients, strict=True)
        if gradient is not None
    ]


def _whole(linear: nn.Module) -> Float[Tensor, "out in"]:
    """The weight, with the bias as last column where there is one."""
    weight = weight_of(linear).float()
    bias: Tensor | None = linear.bias  # type: ignore[assignment]
    return weight if bias is None else torch.cat([weight, bias.detach().float()[:, None]], dim=1)


def _put(linear: nn.Module, weight: Float[Tensor, "out in"]) -> None:
    """The reverse of `_whole`."""
    if linear.bias is not None:
        set_bias(linear, weight[:, -1])
        weight = weight[:, :-1]
    set_weight(linear, weight)


def _spread(groups: Bool[Tensor, "out group"]) -> Bool[Tensor, "out in"]:
    return groups.repeat_interleave(4, dim=1)


def _with_bias(mask: Bool[Tensor, "out in"], costs: Float[Tensor, "out whole"]) -> Bool[Tensor, "out whole"]:
    """A mask that leaves the bias, which is no input, alone."""
    return F.pad(mask, (0, costs.shape[1] - mask.shape[1]))
