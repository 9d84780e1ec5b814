"""LongHeads: every head reads other chunks of a long text, and never more than the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pith.attention import GroupReduction, Part, Reading, Retention, Step
from pith.attention.blocks import latest, padding_before, slots_of, summaries
from pith.core import Method, ModelError, Paper, ParameterError, param


@dataclass(frozen=True, kw_only=True)
class LongHeads(Reading):
    """From `attention_length` on, each head of each token reads the chunks of the text that it agrees with most.

        c_v    = mean over a chunk's queries of their attention over the chunk, both ways
        c_k    = attention of c_v, as a query, over the chunk's keys, with the keys as values
        read   = the first chunk, the token's own up to itself, the one before, and of the others those with the largest
                 q . c_k, attention_length / chunk_size chunks in all
        placed = the keys at 0, 1, 2, ... in their order, the query where its own chunk ends up        (section 2)

    Inside a summary queries and keys are rotated at their place in the chunk; in q . c_k the query is not rotated. No
    head meets a distance of `attention_length` or more, and a text up to that length is read as by the dense model. It
    lets a model read far longer texts; nothing is evicted. Each token costs `attention_length` reads of its own, and a
    product with each summary; no two tokens of a prompt share what they read, which makes prompts slow.

    Deviates: the released code (`released=True`) differs in two places: a token of a prompt does not read itself, and a
    decoded token that fills its chunk reads one chunk less and may not read the chunk before; on random tensors, read
    by chunks of 4 and 8, that changes these tokens' outputs by 14 to 22 % of their norm in a prompt. The paper's models
    have a key-value head for each query head; with grouped queries each query head reads its own chunks, which costs as
    many reads, or with `group` those that share a key-value head read the same. Queries are kept for the chunk that is
    not full, not for the whole text. After `crop`, which takes tokens back, older queries are not known any more: the
    chunks from before get the summary of queries that look at all keys alike. Padding between the turns of a batch
    takes places as tokens do.
    """

    paper: ClassVar[Paper] = Paper(
        "2402.10685",
        "LongHeads: Multi-Head Attention is Secretly a Long Context Processor",
        "Yi Lu, Xin Zhou, Wei He, Jun Zhao, Tao Ji, Tao Gui, Qi Zhang, Xuanjing Huang",
        2024,
        "LuLuLuyi/LongHeads",
    )
    raw: ClassVar[bool] = True

    chunk_size: int = param(256, "tokens of a chunk", ge=1)
    attention_length: int = param(
        4096,
        "tokens that a head reads at most, three chunks or more, below the trained length",
        ge=3,
        sweep=(768, 1024, 1536, 2048, 3072, 4096),
    )
    encoding_batch_size: int = param(
        16, "tokens of a prompt that are read together; more take more memory, and change no result", ge=1
    )
    group: GroupReduction | None = param(
        None, "how the scores of query heads that share a key-value head are made one; none lets each read its own"
    )
    released: bool = param(False, "whether to do as the released code does, see Deviates")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention_length % self.chunk_size or self.attention_length < 3 * self.chunk_size:
            raise ParameterError(
                f"{self.name}: attention_length={self.attention_length} is not allowed; allowed is a multiple of "
                f"chunk_size={self.chunk_size}, {3 * self.chunk_size} or more"
            )

    @property
    def block(self) -> int:
        """The queries that are read together; each reads its own chunks."""
        return self.encoding_batch_size

    @property
    def chunks(self) -> int:
        """The chunks that a head reads."""
        return self.attention_length // self.chunk_size

    def refuses(self, other: Method) -> str | None:
        """Chunks are made of tokens that follow one another."""
        if isinstance(other, Retention):
            return f"{self.name} keeps all pairs, in chunks of tokens that follow one another"
        return super().refuses(other)

    def select(self, step: Step) -> Sequence[Part] | None:
        """Each query's own tokens; everything while the text is not longer than what a head reads."""
        count, device = step.query.shape[2], step.query.device
        front = padding_before(step)
        query = self._note(step)
        if step.stored + self.released <= self.attention_length:
            return None
        front = front.to(device)[:, None]
        place = torch.arange(step.stored - count, step.stored, device=device) - front
        fills = ((place + 1) % self.chunk_size == 0) & (self.released and not step.prefill)
        chooses = place + fills.long() >= self.attention_length
        ids = self.choose(step, query, place, fills)
        ids = torch.where(chooses[:, None, :, None], ids, torch.arange(self.chunks, device=device))
        start = self.attention_length - self.chunk_size
        at = torch.where(chooses, start + place % self.chunk_size - fills.long() * self.chunk_size, place)
        number = at + 1 - chooses.long() if self.released and step.prefill else at + 1
        tokens = ids.unsqueeze(-1) * self.chunk_size + torch.arange(self.chunk_size, device=device)
        reads = torch.arange(self.attention_length, device=device) < number.unsqueeze(-1)
        index = torch.where(reads.unsqueeze(1), tokens.flatten(3) + front[:, None, None], -1)
        keys_at = torch.arange(self.attention_length, device=device).expand(len(place), -1)
        return [Part(index if count > 1 else index.squeeze(2), keys_at=keys_at, query_at=at.clamp(min=0))]

    def choose(
        self,
        step: Step,
        query: Float[Tensor, "batch query_head query head_dim"],
        place: Int[Tensor, "batch query"],
        fills: Bool[Tensor, "batch query"],
    ) -> Int[Tensor, "batch heads query chunk"]:
        """The chunks that each token reads, in their order, as if it stood behind `attention_length`.

        Args:
            query: not rotated.
            place: of the tokens, each in its own row.
            fills: tokens that do not read the chunk before their own without choosing it.
        """
        scores = torch.einsum("bhqd,bhcd->bhqc", query.float(), step.memory["vectors"].float())
        if self.group is not None:
            wide = step.per_kv_head(scores.flatten(2), self.group)
            scores = wide.unflatten(2, scores.shape[2:])  # type: ignore[no-untyped-call]
        free = self.chunks - 3
        scores = F.pad(scores, (0, max(free - scores.shape[3], 0)))
        own = (place // self.chunk_size)[:, None, :, None]
        before = torch.where(fills[:, None, :, None], own, own - 1)  # a chunk that comes twice is cut off at the end
        others = torch.arange(scores.shape[3], device=scores.device)
        scores = scores.masked_fill((others < 1) | (others >= before), float("-inf"))
        chosen = scores.topk(free, dim=-1).indices.sort(dim=-1).values
        first, own, before = (x.expand(*scores.shape[:3], 1) for x in (torch.zeros_like(own), own, before))
        return torch.cat([first, chosen, before, own], dim=-1)

    @torch.no_grad()
    def _note(self, step: Step) -> Float[Tensor, "batch query_head query head_dim"]:
        """Writes down these queries, and the summaries of the chunks that are full now; the queries, not rotated."""
        if step.value_dim != step.query.shape[3]:
            raise ModelError(
                f"{self.name} uses values as queries, which it cannot where they have {step.value_dim} and "
                f"{step.query.shape[3]} dimensions"
            )
        assert step.rotor is not None
        count, stored = step.query.shape[2], step.stored
        own = slice(stored - count, stored)
        query = step.rotor.unrotate(step.query, step.rotor.text(step.positions[:, :1, own]))
        held = latest(step, "queries", self.chunk_size + self.encoding_batch_size, query[:, :, :0])
        held[:, :, torch.arange(stored - count, stored, device=query.device) % held.shape[2]] = query
        since = step.memory.setdefault("since", stored - count)  # those before are forgotten

        def make(ids: Int[Tensor, "batch made"]) -> Float[Tensor, "batch query_head made head_dim"]:
            slots = slots_of(step, ids * self.chunk_size, self.chunk_size)
            heads = held.gather(2, (slots % held.shape[2]).unsqueeze(-1).expand(-1, held.shape[1], -1, held.shape[3]))
            return self.represented(step, heads.masked_fill((slots < since).unsqueeze(-1), 0), slots)

        summaries(step, ((stored - step.memory["front"]) // self.chunk_size).clamp(min=0), make)
        return query

    def represented(
        self,
        step: Step,
        query: Float[Tensor, "batch query_head tokens head_dim"],
        slots: Int[Tensor, "batch 1 tokens"],
    ) -> Float[Tensor, "batch query_head chunk head_dim"]:
        """c_k of chunks, whose tokens stand at these slots; the queries are not rotated."""
        assert step.rotor is not None
        keys, values = step.store.gather(slots)
        inside = torch.arange(slots.shape[2], device=slots.device).remainder(self.chunk_size).expand(len(query), 1, -1)
        query, keys = step.rotor.rotate(query, inside).float(), step.rotor.rotate(keys, inside).float()
        query = rearrange(query, "b (kv group) (c n) d -> b kv c group n d", kv=keys.shape[1], n=self.chunk_size)
        keys, values = (rearrange(x.float(), "b kv (c n) d -> b kv c 1 n d", n=self.chunk_size) for x in (keys, values))
        scaling = query.shape[-1] ** -0.5 if step.scaling is None else step.scaling
        looks = (query @ keys.transpose(-1, -2) * scaling).softmax(dim=-1).mean(dim=-2, keepdim=True)
        weights = (looks @ values @ keys.transpose(-1, -2) * scaling).softmax(dim=-1)
        return rearrange(weights @ keys, "b kv c group 1 d -> b (kv group) c d")
