"""InfLLM: what left the local window is kept in blocks, and the blocks that fit the query are read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention import Part, Reading, Retention, Step
from pith.attention.blocks import latest, padding_before, slots_of, summaries
from pith.core import Method, Paper, ParameterError, param


@dataclass(frozen=True, kw_only=True)
class InfLLM(Reading):
    """Queries read a local window, the first tokens, and the far blocks whose representatives they agree with most.

        read   = n_init first tokens | topk blocks | tokens not in a block yet | the last n_local tokens
        far    : every query stands n_local - 1 after every token of the first three; one softmax over all
        r_j    = attention that token j received, while it was in the local window, from all queries
        block  = mean key, not rotated, of the repr_topk tokens of a block with the largest r_j
        choice = sum over heads of (mean of the queries read together, at n_local - 1) . block              (section 3)

    It lets a model read texts far longer than it was trained on, at distances that it knows. Everything is kept;
    with `offload="cpu"` the device holds what is read, a vector a head for each block, and 4 bytes for each token.
    Texts of up to `n_local` tokens are read as by the dense model. All heads of a layer read the same blocks.

    Deviates: representatives and the far distance are as in the authors' code; the paper's r_j is a mean of logits, and
    its distance n_local. Their mask lets the first queries of an execution block read tokens that are in no block yet
    twice, near and far; here each is read once. On random tensors with windows of 8 and 12 tokens that changes the
    outputs of two thirds of a prompt's tokens, by 16 % of their norm; and what tokens received decides which of them
    represent a block, so that later tokens may read other blocks. Not built: their cache of blocks on the device, which
    saves transfers and changes no result. Padded batches, which their code does not take, are read in execution blocks
    that are cut where the longest row's are: a row gives what it gives alone where its padding is a multiple of
    `exec_block_size`. Padding between the turns of a batch takes places as tokens do. After `crop`, which takes tokens
    back, the attention received so far is not known any more; blocks from before are represented by the mean of all
    their keys, which are read once more for that.
    """

    paper: ClassVar[Paper] = Paper(
        "2402.04617",
        "InfLLM: Training-Free Long-Context Extrapolation for LLMs with an Efficient Context Memory",
        "Chaojun Xiao, Pengle Zhang, Xu Han, Guangxuan Xiao, Yankai Lin, Zhengyan Zhang, Zhiyuan Liu, Song Han, "
        "Maosong Sun",
        2024,
        "thunlp/InfLLM",
    )
    raw: ClassVar[bool] = True

    block_size: int = param(128, "tokens of a block", ge=1)
    n_init: int = param(128, "first tokens that every query reads", ge=0)
    n_local: int = param(
        4096, "latest tokens that a query reads at their distances, below the trained length", ge=1, sweep=(128, 4096)
    )
    topk: int = param(16, "blocks that are read", ge=1, sweep=(2, 32))
    repr_topk: int = param(4, "tokens that represent a block, at most block_size", ge=1)
    exec_block_size: int = param(512, "queries of a prompt that read the same blocks", ge=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repr_topk > self.block_size:
            raise ParameterError(
                f"{self.name}: repr_topk={self.repr_topk} is not allowed; allowed is at most block_size="
                f"{self.block_size}"
            )

    @property
    def block(self) -> int:
        """The queries of an execution block."""
        return self.exec_block_size

    def refuses(self, other: Method) -> str | None:
        """Blocks are made of tokens that follow one another."""
        if isinstance(other, Retention):
            return f"{self.name} keeps all pairs, in blocks of tokens that follow one another"
        return super().refuses(other)

    def select(self, step: Step) -> Sequence[Part]:
        """The local window, and what is far."""
        end, count, device = step.stored, step.query.shape[2], step.query.device
        padding_before(step)
        slots = torch.arange(max(end - count - self.n_local + 1, 0), end, device=device)
        places = (slots - slots[0]).unsqueeze(0)
        near = Part(
            slots.expand(len(step.query), 1, -1),
            keys_at=places,
            query_at=places[:, -count:],
            window=self.n_local if count > 1 else None,
        )
        if end <= self.n_local:
            return [near]
        far = self.far(step).unsqueeze(1)
        keys_at, query_at = torch.zeros_like(far[:1, 0]), torch.full((1, count), self.n_local - 1, device=device)
        return [near, Part(far, keys_at, query_at, beyond=self.n_local if count > 1 else None)]

    def far(self, step: Step) -> Int[Tensor, "batch read"]:
        """The slots that are read at the far distance; -1 is none. There are never more, however long the text is."""
        device, count = step.query.device, step.query.shape[2]
        front = step.memory["front"].to(device).unsqueeze(1)
        read = step.stored - count - front  # tokens of each row that were read before these
        sinks = (read - self.n_local).clamp(0, self.n_init)
        first = torch.arange(self.n_init, device=device)
        blocks = self.choose(step)
        inside = torch.arange(self.block_size, device=device)
        tokens = self.n_init + blocks.unsqueeze(-1) * self.block_size + inside
        rest = sinks + self.formed(read) * self.block_size
        rest = rest + torch.arange(self.block_size - 1 + count, device=device)
        parts = [
            torch.where(first < sinks, first, -1),
            torch.where(blocks.unsqueeze(-1) >= 0, tokens, -1).flatten(1),
            torch.where(rest < read + count - self.n_local, rest, -1),
        ]
        index = torch.cat(parts, dim=1)
        return torch.where(index >= 0, index + front, -1)

    def formed(self, read: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """The blocks that there are once so many tokens were read: those that left the local window whole."""
        return ((read - self.n_init - self.n_local) // self.block_size).clamp(min=0)

    def choose(self, step: Step) -> Int[Tensor, "batch chosen"]:
        """The blocks that these queries read, in order; -1 is none."""
        count = step.query.shape[2]
        vectors = self.vectors(step, step.stored - count)
        formed = step.memory["blocks"].to(vectors.device).unsqueeze(1)
        known = torch.arange(vectors.shape[2], device=vectors.device)
        if len(known) <= self.topk:
            return torch.where(known < formed, known, -1)
        assert step.rotor is not None
        own = step.positions[:, :1, step.stored - count :]
        query = step.rotor.unrotate(step.query, step.rotor.text(own)).float()
        asks = (own >= 0).unsqueeze(-1)
        mean = (query * asks).sum(dim=2, keepdim=True) / asks.sum(dim=2, keepdim=True).clamp(min=1)
        far = step.rotor.rotate(mean, torch.full_like(own[:, :, :1], self.n_local - 1, dtype=torch.long))
        scores = torch.einsum("bhqd,bhjd->bj", far, vectors.float()).masked_fill(known >= formed, float("-inf"))
        best = scores.topk(self.topk, dim=-1)
        return torch.where(best.values > float("-inf"), best.indices, -1).sort(dim=-1).values

    @torch.no_grad()
    def observe(
        self, step: Step, parts: Sequence[Part], weights: Sequence[Float[Tensor, "batch query_head query _"]]
    ) -> None:
        """Adds up what the tokens of the local window receive, and forms the blocks that have left it."""
        count, received = step.query.shape[2], weights[0]
        if step.padded:
            received = received * step.real[:, :, step.stored - count :].unsqueeze(-1)
        # a block is formed when it has left the window by less than an execution block
        width = self.n_local + self.block_size + self.exec_block_size
        mass = latest(step, "mass", width, received[:, :, :0, 0])
        places = parts[0].index[0, 0] % mass.shape[2]
        mass[:, :, places[-count:]] = 0  # what stood there left the window long ago
        mass.index_add_(2, places, received.sum(dim=2))
        self.vectors(step, step.stored)

    def vectors(self, step: Step, end: int) -> Float[Tensor, "batch query_head block head_dim"]:
        """The vectors of the blocks that there are once the first `end` slots were read."""

        def make(ids: Int[Tensor, "batch made"]) -> Float[Tensor, "batch query_head made head_dim"]:
            slots = slots_of(step, self.n_init + ids * self.block_size, self.block_size)
            keys = rearrange(step.store.gather(slots)[0], "b kv (made n) d -> b kv made n d", n=self.block_size)
            mass = step.memory.get("mass")
            if mass is None:  # forgotten
                mass = torch.zeros(*step.query.shape[:2], 1, device=ids.device)
            mass = mass.gather(2, (slots % mass.shape[2]).expand(-1, mass.shape[1], -1))
            return represented(rearrange(mass, "b h (made n) -> b h made n", n=self.block_size), keys, self.repr_topk)

        return summaries(step, self.formed(end - step.memory["front"]), make)


def represented(
    mass: Float[Tensor, "batch query_head made token"], keys: Float[Tensor, "batch kv_head made token dim"], count: int
) -> Float[Tensor, "batch query_head made dim"]:
    """The mean of the `count` keys of each block with the most attention; of all where there is none known."""
    best = mass.topk(count, dim=-1).indices
    share = torch.zeros_like(mass).scatter_(-1, best, 1 / count)
    share = torch.where(mass.amax(dim=-1, keepdim=True) > 0, share, 1 / mass.shape[-1])
    share = rearrange(share, "b (kv group) made n -> b kv group made n", kv=keys.shape[1])
    return torch.einsum("bkgmn,bkmnd->bkgmd", share, keys.float()).flatten(1, 2)
