"""Linear layers that read the weight of another one, and add a low-rank difference of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pith.weights.standin import StandIn


class SharedLinear(StandIn):
    """y = base(x) + A B x + bias, where the base is a layer of another block; y is normalised where it has a gain.

        y = gain * (y - mean(y)) / sqrt(var(y) + 1e-5)

    The base stands once in memory and in files, under its own name. Whatever later takes its place, packed say, is read
    from then on.

    Attributes:
        base: the name of the other layer in the model.
        left, right: A [out, rank] and B [rank, in].
        bias: [out], what is added to the base's own; or None.
        gain: [out]; or None where the output is not normalised.
    """

    kind: ClassVar[str] = "shared_linear"
    reads_all: ClassVar[bool] = False

    def __init__(self, base: str, inputs: int, out: int, rank: int, bias: bool, gain: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.base = base
        self.in_features, self.out_features, self.rank = inputs, out, rank
        self.left = nn.Parameter(torch.empty(out, rank, dtype=dtype))
        self.right = nn.Parameter(torch.empty(rank, inputs, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out, dtype=dtype)) if bias else None
        self.gain = nn.Parameter(torch.empty(out, dtype=dtype)) if gain else None
        self._owner: tuple[nn.Module, ...] = ()  # in a tuple, so that the base is not a part of this module too

    def forward(self, x: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        """The product, in the dtype of x."""
        product: Tensor = getattr(self._owner[0], self.base.rpartition(".")[2])(x)
        product = product + F.linear(F.linear(x, self.right.to(x.dtype)), self.left.to(x.dtype))
        if self.bias is not None:
            product = product + self.bias.to(x.dtype)
        if self.gain is None:
            return product
        return F.layer_norm(product, (self.out_features,)) * self.gain.to(x.dtype)

    def placed(self, model: nn.Module) -> None:
        """See `StandIn`."""
        self._owner = (model.get_submodule(self.base.rpartition(".")[0]),)

    def plan(self) -> dict[str, Any]:
        """See `StandIn`."""
        return {
            "base": self.base, "inputs": self.in_features, "out": self.out_features, "rank": self.rank,
            "bias": self.bias is not None, "gain": self.gain is not None,
        }  # fmt: skip

    @classmethod
    def build(cls, plan: Mapping[str, Any], replaced: nn.Module, dtype: torch.dtype) -> SharedLinear:
        """See `StandIn`."""
        sizes = (plan["inputs"], plan["out"], plan["rank"])
        own = cls(plan["base"], *sizes, plan["bias"], plan["gain"], dtype)
        if isinstance(replaced, SharedLinear):
            own._owner = replaced._owner
        return own

    def extra_repr(self) -> str:
        """Its shape and its base."""
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}, base={self.base}"
