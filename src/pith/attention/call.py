"""What the model's attention module asks of an attention function, in one value."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """One call of a model's attention.

    Attributes:
        module: the model's attention module.
        mask: [batch, tokens] padding mask, [batch, 1 or head, query, key] mask, or None.
        positions: [batch, query], the text positions of the new tokens, where the model hands them on.
        scaling: what logits are multiplied by; None is 1 / sqrt(head_dim).
        softcap, sinks: the cap of the logits, and one more logit a query head in the denominator, where there are any.
        dropout: the probability of dropping a weight, in training.
        attended: [batch, query_head, query, value_dim], the dense attention of a prompt over itself, where it is known.
    """

    module: nn.Module
    mask: Tensor | None
    positions: Tensor | None
    scaling: float | None
    softcap: float | None
    sinks: Float[Tensor, " query_head"] | None
    dropout: float
    attended: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether a fused kernel can do it: neither a cap nor sinks."""
        return self.softcap is None and self.sinks is None
