"""Expected Attention: what queries that are yet to come will look at, if they are like those of the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from pith.attention import Eviction, GroupReduction, Step
from pith.core import Paper, param


@dataclass(frozen=True, kw_only=True)
class ExpectedAttention(Eviction):
    """Keep the pairs that the next queries are expected to take most from, queries being normally distributed.

        q       ~ N(mu, Sigma)          the prompt's queries before their rotation, without those of the first n_sink
        R       = mean of the rotations at the next n_future_positions places in the text
        z_j     = (R mu) k_j / sqrt(d) + k_j (R Sigma R^T) k_j / (2 d)     so that E[exp(q k_j / sqrt(d))] = exp(z_j)
        score_j = (mean_{query heads of the group} softmax_j(z) + epsilon) * ||v_j||
        kept    = the first n_sink, and the best

    Once, when the prompt was read: it asks about no question in particular, so one cache serves many. The authors'
    benchmarks divide the budget between heads as well: `ada_kv(expected_attention(epsilon=0.01))`.

    Deviates: nothing in the numbers for one prompt, in float32 (see `Retention`). The authors project the layer's input
    once more to get the queries; here the ones that the layer has made are turned back. A further part of a prompt, or
    a further turn, is scored by its own queries, all that is held being scored; the authors compress one prompt.
    Padding takes no part. Caps and sinks that some models put on their logits are left out, as in their code.
    """

    paper: ClassVar[Paper] = Paper(
        "2510.00636",
        "Expected Attention: KV Cache Compression by Estimating Attention from Future Queries Distribution",
        "Alessio Devoto, Maximilian Jeblick, Simon Jégou",
        2025,
        "NVIDIA/kvpress",
    )
    rotates: ClassVar[bool] = True

    n_future_positions: int = param(512, "places behind the prompt that rotations are averaged over", ge=1, le=2**20)
    n_sink: int = param(4, "first tokens that are always kept, and whose queries do not count", ge=0)
    use_covariance: bool = param(True, "whether the spread of the queries counts, beside their mean")
    use_vnorm: bool = param(True, "whether the norms of the values count")
    epsilon: float = param(0.0, "added to the expected attention before the norms of the values", ge=0.0)
    group: GroupReduction = param("mean", "how the query heads that share a key-value head are made one")

    def score(self, step: Step) -> Float[Tensor, "batch kv_head key"]:
        """The expected attention by the norms of the values; the first tokens above all."""
        mean, covariance = (
            rearrange(x, "b (kv group) ... -> b kv group ...", kv=step.kv_head) for x in self.future(step)
        )
        keys = step.keys.float()
        scaling = keys.shape[-1] ** -0.5 if step.scaling is None else step.scaling
        z = scaling * mean @ keys.transpose(-1, -2)
        if self.use_covariance:
            spread = keys.unsqueeze(2) @ covariance
            z = z + scaling**2 / 2 * torch.einsum("b k g n d, b k n d -> b k g n", spread, keys)
        counts = (step.positions >= self.n_sink).unsqueeze(2)
        expected = z.masked_fill(~counts, torch.finfo(z.dtype).min).softmax(dim=-1)
        scores = step.per_kv_head(expected.flatten(1, 2), self.group)
        if self.use_vnorm:
            scores = (scores + self.epsilon) * step.values.float().norm(dim=-1)
        return step.protect(scores, first=self.n_sink)

    def future(
        self, step: Step
    ) -> tuple[Float[Tensor, "batch query_head dim"], Float[Tensor, "batch query_head dim dim"]]:
        """R mu and R Sigma R^T."""
        assert step.rotor is not None
        mean, covariance = self.statistics(step)
        newest = step.rotor.text(step.positions[:, :1, -1:])[:, 0]
        places = newest + 1 + torch.arange(self.n_future_positions, device=newest.device)
        half = step.rotor.average(covariance, places)  # Sigma R^T: rows are rotated
        return (
            step.rotor.average(mean.unsqueeze(2), places).squeeze(2),
            step.rotor.average(half.transpose(-1, -2), places),
        )

    def statistics(
        self, step: Step
    ) -> tuple[Float[Tensor, "batch query_head dim"], Float[Tensor, "batch query_head dim dim"]]:
        """mu and Sigma."""
        assert step.rotor is not None
        own = step.positions[:, :1, step.stored - step.query.shape[2] :]
        query = step.rotor.unrotate(step.query, step.rotor.text(own)).float()
        counts = (own >= self.n_sink).unsqueeze(-1).float()
        number = counts.sum(dim=2, keepdim=True).clamp(min=1)
        mean = (query * counts).sum(dim=2, keepdim=True) / number
        centred = (query - mean) * counts
        return mean.squeeze(2), centred.transpose(-1, -2) @ centred / number
