"""What stands where attention or an MLP was dropped, and the numbers by which what is left finds its cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pith.weights.blocks import blocks
from pith.weights.standin import StandIn

_BY_ATTENTION = ("layer_types", "no_rope_layers", "layer_rope_theta")
"""Lists in configurations that say for every layer what its attention is."""


class Dropped(StandIn):
    """Gives the same for every token: nothing, or a bias.

    Attributes:
        hidden: how many numbers a token has.
        bias: [hidden], or None.
    """

    def __init__(self, hidden: int, bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.hidden = hidden
        self.bias = nn.Parameter(torch.empty(hidden, dtype=dtype), requires_grad=False) if bias else None

    def output(self, states: Float[Tensor, "... token hidden"]) -> Float[Tensor, "... token hidden"]:
        """What is added to the hidden states; nothing of their size is made."""
        one = states.new_zeros(self.hidden) if self.bias is None else self.bias.to(states.dtype)
        return one.expand(*states.shape[:-1], self.hidden)

    def plan(self) -> dict[str, Any]:
        """See `StandIn`."""
        return {"hidden": self.hidden, "bias": self.bias is not None}

    @classmethod
    def build(cls, plan: Mapping[str, Any], replaced: nn.Module, dtype: torch.dtype) -> Dropped:
        """See `StandIn`."""
        return cls(plan["hidden"], plan["bias"], dtype)


class NoAttention(Dropped):
    """Stands where attention was, and keeps no keys and values."""

    kind: ClassVar[str] = "no_attention"

    def forward(
        self, hidden_states: Float[Tensor, "... token hidden"], *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """The bias or zeros, and None where attention has its weights."""
        return self.output(hidden_states), None

    def placed(self, model: nn.Module) -> None:
        """See `StandIn`."""
        number_layers(model)


class NoMLP(Dropped):
    """Stands where an MLP was."""

    kind: ClassVar[str] = "no_mlp"

    def __init__(self, hidden: int, bias: bool, dtype: torch.dtype, *, routed: bool = False) -> None:
        super().__init__(hidden, bias, dtype)
        self.routed = routed

    def forward(self, hidden_states: Float[Tensor, "... token hidden"]) -> Tensor | tuple[Tensor, None]:
        """The bias or zeros; with None beside them where the model's MLPs say how they routed."""
        output = self.output(hidden_states)
        return (output, None) if self.routed else output

    def plan(self) -> dict[str, Any]:
        """See `StandIn`."""
        return {**super().plan(), "routed": self.routed}

    @classmethod
    def build(cls, plan: Mapping[str, Any], replaced: nn.Module, dtype: torch.dtype) -> NoMLP:
        """See `StandIn`."""
        return cls(plan["hidden"], plan["bias"], dtype, routed=plan["routed"])


class NoNorm(StandIn):
    """Stands where the norm of a dropped part was."""

    kind: ClassVar[str] = "no_norm"

    def forward(self, hidden_states: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        """What came in."""
        return hidden_states

    def plan(self) -> dict[str, Any]:
        """See `StandIn`."""
        return {}

    @classmethod
    def build(cls, plan: Mapping[str, Any], replaced: nn.Module, dtype: torch.dtype) -> NoNorm:
        """See `StandIn`."""
        return cls()


def number_layers(model: Any) -> None:
    """Gives every block the number of its layer in the cache, such that no reader of the cache asks a dropped one.

    Transformers reads how many tokens were seen from the first layer of the cache, and what masks cover from the first
    layer of each type. So of the layers of one type those that still attend come first. Layers whose attention was
    dropped count as of the type of the first that attends, which the configuration then says too: without that, the
    first layer could be the only one of its type.
    """
    layers, config = list(blocks(model)), model.config.get_text_config(decoder=True)
    attention = [getattr(block, "self_attn", None) for block in layers]
    lost = [index for index, part in enumerate(attention) if isinstance(part, NoAttention)]
    live = [index for index, part in enumerate(attention) if part is not None and index not in lost]
    numbers = list(range(len(layers)))
    if lost and live:
        lists = [name for name in _BY_ATTENTION if len(getattr(config, name, None) or ()) == len(layers)]
        for name in lists:
            said = list(getattr(config, name))
            setattr(config, name, [said[live[0]] if index in lost else one for index, one in enumerate(said)])
        labels = [tuple(getattr(config, name)[index] for name in lists) for index in numbers]
        for label in {labels[index] for index in live}:
            seats = [index for index in (*lost, *live) if labels[index] == label]
            taking = [index for index in (*live, *lost) if labels[index] == label]
            for index, seat in zip(taking, sorted(seats), strict=True):
                numbers[index] = seat
    for block, number in zip(layers, numbers, strict=True):
        for module in block.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = number  # type: ignore[assignment]
