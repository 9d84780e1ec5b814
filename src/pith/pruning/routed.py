"""An MLP whose tokens each read only the channels of one expert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pith.core import ModelError
from pith.weights import StandIn, dense_of

_NAMES = ("gate_proj", "up_proj", "down_proj")


class RoutedMLP(StandIn):
    """A router chooses one expert for every token; experts are lists of the MLP's channels, which they may share.

        c = channels[argmax router x];    y = down[:, c] (act(gate[c] x) * up[c] x)

    Attributes:
        router: [expert, hidden].
        channels: of every expert: [expert, width].
    """

    kind: ClassVar[str] = "routed_mlp"
    reads_all: ClassVar[bool] = False

    def __init__(self, replaced: nn.Module, experts: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        for name in _NAMES:
            if isinstance(layer := getattr(replaced, name, None), nn.Module):
                self.add_module(name, layer)
        self.act_fn: Any = replaced.act_fn
        hidden: int = self.down_proj.out_features  # type: ignore[union-attr, assignment]
        self.router = nn.Parameter(torch.empty(experts, hidden, dtype=dtype), requires_grad=False)
        self.register_buffer("channels", torch.empty(experts, width, dtype=torch.int32))
        self.channels: Int[Tensor, "expert width"]

    def forward(self, x: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        """Every token through its expert; only what is chosen is multiplied."""
        rows = x.reshape(-1, x.shape[-1])
        expert = F.linear(rows, self.router.to(x.dtype)).argmax(-1)
        order = expert.argsort(stable=True)
        counts = torch.bincount(expert, minlength=len(self.channels)).tolist()
        weights = {name: _dense(layer) for name, layer in self.named_children() if name in _NAMES}
        result = torch.empty_like(rows)
        for index, tokens in enumerate(torch.split(order, counts)):
            if len(tokens):
                result[tokens] = self._expert(rows[tokens], self.channels[index].long(), weights)
        return result.view_as(x)

    def _expert(
        self, x: Float[Tensor, "token hidden"], channels: Int[Tensor, " width"], weights: dict[str, Tensor]
    ) -> Float[Tensor, "token hidden"]:
        def first(name: str) -> Float[Tensor, "token width"]:
            bias = getattr(self, name).bias
            return F.linear(x, weights[name][channels].to(x.dtype), None if bias is None else bias[channels])

        inner = (
            self.act_fn(first("gate_proj")) * first("up_proj")
            if "gate_proj" in weights
            else self.act_fn(first("up_proj"))
        )
        return F.linear(inner, weights["down_proj"][:, channels].to(x.dtype), self.down_proj.bias)  # type: ignore[union-attr, arg-type]

    def plan(self) -> dict[str, Any]:
        """See `StandIn`."""
        experts, width = self.channels.shape
        inner = self.up_proj.out_features  # type: ignore[union-attr]
        return {"experts": experts, "width": width, "inner": inner}

    @classmethod
    def build(cls, plan: Mapping[str, Any], replaced: nn.Module, dtype: torch.dtype) -> RoutedMLP:
        """See `StandIn`."""
        for name in _NAMES:
            if isinstance(layer := getattr(replaced, name, None), nn.Linear):
                inputs, out = layer.in_features, layer.out_features
                inputs, out = (plan["inner"], out) if name == "down_proj" else (inputs, plan["inner"])
                new = nn.Linear(inputs, out, layer.bias is not None, device=layer.weight.device, dtype=dtype)
                setattr(replaced, name, new)
        return cls(replaced, plan["experts"], plan["width"], dtype)

    def extra_repr(self) -> str:
        """How many experts of how many channels."""
        experts, width = self.channels.shape
        return f"experts={experts}, width={width}"


def _dense(layer: Any) -> Tensor:
    """The weight of a layer, which whatever a later method put there decodes."""
    weight: Tensor = layer.dense() if hasattr(layer, "dense") else dense_of(layer)
    return weight


def active_share(model: nn.Module, inner: int) -> float:
    """The share of MLP channels that a token reads, over all routed MLPs, of `inner` that each had."""
    routed = [module for module in model.modules() if isinstance(module, RoutedMLP)]
    if not routed:
        raise ModelError(f"{type(model).__name__} has no routed MLP")
    return sum(module.channels.shape[1] for module in routed) / (inner * len(routed))
