"""TokenSelect: queries read the first tokens, the latest ones, and single tokens that the heads vote for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention import Part, Reading, Retention, Step
from pith.attention.reading import slots_of, tokens_held
from pith.core import Method, Paper, ParameterError, param


@dataclass(frozen=True, kw_only=True)
class TokenSelect(Reading):
    """Queries read the first tokens, the latest, and the `k` of those between that the heads vote for; close together.

        q     = mean of the queries of a chunk, rotated at n_local, n_local + 1, ...; keys are not rotated
        vote  = sum_h softmax_j(q_h k_j)         over the tokens between, without 1 / sqrt(d)     (per-head soft voting)
        read  = [0, n_init), the k tokens with the largest vote, the last n_local,
                at positions 0, 1, 2, ... of this list
        again = the tokens chosen before, while cos(q, q of that choice) >= theta               (selection cache)

    All heads of a layer read the same tokens. A model so reads texts that are longer than it was trained on, at
    positions that it knows. Nothing is evicted: it saves time, not bytes. What is no longer than what is read is read
    as by the dense model.

    Deviates: query head h votes by the keys of key-value head h // (heads of a group), which it reads, by default; the
    paper and the authors' kernel take h modulo the number of key-value heads (`heads="modulo"`). Votes are compared by
    their logarithms in float32, on a grid of 1 / 8192, and of equal votes the earlier wins; the authors' are bfloat16.
    The authors cut a prompt into chunks from its beginning, here the short chunk is the first, so that padding moves
    none. The selection cache is the paper's; the authors release it switched off.
    """

    paper: ClassVar[Paper] = Paper(
        "2411.02886",
        "TokenSelect: Efficient Long-Context Inference and Length Extrapolation for LLMs via Dynamic Token-Level KV "
        "Cache Selection",
        "Wei Wu, Zhuoshi Pan, Kun Fu, Chao Wang, Liyi Chen, Yunchu Bai, et al.",
        2024,
        "pzs19/TokenSelect",
    )
    raw: ClassVar[bool] = True
    whole_at_end: ClassVar[bool] = True

    n_init: int = param(128, "first tokens that are always read", ge=0)
    n_local: int = param(512, "latest tokens that are always read, chunk or more", ge=1)
    k: int = param(2048, "tokens between that are read", ge=1, sweep=(16, 4096))
    chunk: int = param(512, "queries of a prompt that read the same tokens, at most n_local", ge=1)
    theta: float = param(0.9, "cosine of queries from which on a choice is used again; 0 is never", ge=0.0, le=1.0)
    kernel_size: int = param(
        1, "neighbouring tokens that get the largest vote among them; 1 is each its own", ge=1, odd=True
    )
    heads: Literal["group", "modulo"] = param("group", "which key-value head's keys a query head votes by")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunk > self.n_local:
            raise ParameterError(
                f"{self.name}: chunk={self.chunk} is not allowed; allowed is at most n_local={self.n_local}"
            )

    @property
    def block(self) -> int:
        """The queries of a chunk."""
        return self.chunk

    def refuses(self, other: Method) -> str | None:
        """Evictions: most leave each head tokens of its own."""
        if isinstance(other, Retention):
            return f"{self.name} keeps all pairs, and all heads read the same of them"
        return super().refuses(other)

    def select(self, step: Step) -> Sequence[Part] | None:
        """One list of tokens for all heads, with its own positions."""
        held, size = tokens_held(step), self.n_init + self.k + self.n_local
        over = held > size
        if not bool(over.any()):
            return None
        place = torch.arange(size, device=held.device)
        behind = torch.where(over, held - size, 0)  # tokens that the list leaves out
        ranks = torch.where(place < self.n_init, place, place + behind)
        chosen = F.pad(self._chosen(step, held, over), (self.n_init, self.n_local))
        between = (place >= self.n_init) & (place < self.n_init + self.k)
        slots = slots_of(step, torch.where(over & between, chosen, ranks))
        query_at = held[:, 0] - behind[:, 0] - torch.arange(step.query.shape[2], 0, -1, device=held.device)
        return [Part(slots, keys_at=place.expand(len(slots), -1), query_at=query_at.clamp(min=0))]

    def votes(self, step: Step, query: Float[Tensor, "batch query_head head_dim"]) -> Float[Tensor, "batch 1 token"]:
        """The logarithm of each token's vote, in the order of a row's tokens; -inf where it is not between."""
        held = tokens_held(step)
        pattern = (
            "b (kv group) dim -> b kv group dim" if self.heads == "group" else "b (group kv) dim -> b kv group dim"
        )
        folded = rearrange(query.to(step.query.dtype), pattern, kv=step.kv_head)
        there = next(step.store.key_column.tensors()).device  # the queries are brought to the keys: they are few
        products = step.store.key_column.dot(folded.to(there)).to(held.device).flatten(1, 2).float()
        if step.padded:
            order = slots_of(step, torch.arange(step.stored, device=held.device).expand(len(query), 1, -1))
            products = products.gather(2, order.clamp(min=0).expand_as(products))
        token = torch.arange(step.stored, device=held.device)
        between = (token >= self.n_init) & (token < held - self.n_local)
        logits = products.masked_fill(~between, torch.finfo(products.dtype).min)
        votes = logits.log_softmax(dim=-1).logsumexp(dim=1, keepdim=True).masked_fill(~between, float("-inf"))
        if self.kernel_size == 1:
            return votes
        pooled: Tensor = F.max_pool1d(votes, self.kernel_size, stride=1, padding=self.kernel_size // 2)
        return pooled.masked_fill(~between, float("-inf"))

    def _chosen(self, step: Step, held: Int[Tensor, "batch 1 1"], over: Tensor) -> Int[Tensor, "batch 1 k"]:
        """The tokens between that are read, as indices among those of a row, in order."""
        query = self.mean_query(step)
        memory, flat = step.memory, query.flatten(1)
        if self.theta and "query" in memory:
            alike = F.cosine_similarity(flat, memory["query"], dim=-1)
            again = (alike >= self.theta)[:, None, None]
            if bool((again | ~over).all()):
                chosen: Tensor = memory["chosen"]
                return chosen
        else:
            again = torch.zeros_like(over)
        chosen = _first_of_the_best(self.votes(step, query), self.k).sort(dim=-1).values
        if self.theta:
            chosen = torch.where(again, memory.get("chosen", chosen), chosen)
            # a row that reads everything has chosen nothing yet: nothing is like zeros
            now = torch.where((over & ~again)[:, 0], flat, 0)
            memory.update(chosen=chosen, query=torch.where(again[:, 0], memory.get("query", now), now))
        return chosen

    def mean_query(self, step: Step) -> Float[Tensor, "batch query_head head_dim"]:
        """The mean of the queries as they are at n_local, n_local + 1, ...; float32."""
        assert step.rotor is not None
        count = step.query.shape[2]
        own = step.positions[:, :1, step.stored - count :]
        real = own >= 0
        at = self.n_local + (real.long().cumsum(dim=-1) - 1).clamp(min=0)
        query = step.rotor.rotate(step.rotor.unrotate(step.query, step.rotor.text(own)), at)
        total = (query.float() * real.unsqueeze(-1)).sum(dim=2)
        return total / real.sum(dim=-1, keepdim=True).clamp(min=1)


def _first_of_the_best(votes: Float[Tensor, "batch 1 token"], k: int) -> Int[Tensor, "batch 1 k"]:
    """The `k` tokens with the largest votes, of equal votes the earlier.

    A word that comes again has the same un-rotated key in the first layer, and so the same vote but for rounding: votes
    are compared on a grid, so that what else is stored does not decide between the two.
    """
    none = votes == float("-inf")
    grid = (votes * 8192).round().clamp(min=-(2.0**40)).long() * votes.shape[-1]
    order = grid - torch.arange(votes.shape[-1], device=votes.device)
    return order.masked_fill(none, torch.iinfo(torch.long).min).topk(k, dim=-1).indices
