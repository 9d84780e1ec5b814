"""TOVA: what the current token does not look at is dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from pith.attention import Eviction, Step
from pith.core import Paper


@dataclass(frozen=True, kw_only=True)
class TOVA(Eviction):
    """Keep the pairs with the most attention of the current token, one choice for all heads of a layer.

        score_j = mean_{query heads} softmax(q_n K^T / sqrt(d))_j            q_n: the newest token's query (section 3)

    It evicts after every forward: a prompt is cut to the budget by its last token's attention alone, and each decoded
    token drops one pair. Nothing is protected, neither first nor recent tokens nor the current one.

    Deviates: keys keep their rotation at text positions, as in the authors' default; their optional compression of the
    gaps between positions is not built.
    """

    paper: ClassVar[Paper] = Paper(
        "2401.06104",
        "Transformers are Multi-State RNNs",
        "Matanel Oren, Michael Hassid, Nir Yarden, Yossi Adi, Roy Schwartz",
        2024,
        "schwartz-lab-NLP/TOVA",
    )
    every_step: ClassVar[bool] = True

    def score(self, step: Step) -> Float[Tensor, "batch 1 key"]:
        """The newest token's attention, the mean over all heads."""
        return step.attention(last=1)[:, :, 0].mean(dim=1, keepdim=True)
