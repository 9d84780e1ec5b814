"""Quest: a query reads the pages of the cache that could hold a key it agrees with most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from pith.attention import GroupReduction, Part, Reading, Step
from pith.attention.reading import read_count, slots_of, tokens_held
from pith.core import MOST, Paper, ParameterError, param

HEADROOM = 16
"""Pages that the memory grows by at least."""


@dataclass(frozen=True, kw_only=True)
class Quest(Reading):
    """Decoded tokens read whole pages of the cache, those with the highest bound on q k, and the newest page.

        M, m    = the largest and the smallest of each channel of a page's keys
        u(page) = sum_c max(q_c M_c, q_c m_c) >= q k  for every key k of the page
        read    = the newest page and the (token_budget / page_size - 1) pages with the largest u      (section 3.3)

    A prompt is read densely, and so are the first layers. Nothing is evicted: it saves time, not bytes; the extremes
    take 1 / page_size of what the cache takes.

    Deviates: the paper's models have a key-value head for each query head; with grouped queries the bounds of a group
    are reduced to one, so that a key-value head's pages are read once. The newest page is always read, as in the
    authors' kernels; their evaluation code does not force it, and reads three pages at least. Pages count the tokens of
    a row, so that padding moves none of them.
    """

    paper: ClassVar[Paper] = Paper(
        "2406.10774",
        "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference",
        "Jiaming Tang, Yilong Zhao, Kan Zhu, Guangxuan Xiao, Baris Kasikci, Song Han",
        2024,
        "mit-han-lab/Quest",
    )
    restartable: ClassVar[bool] = True

    token_budget: float | int = param(
        1024, "tokens that a query reads, or their share of what is stored", ge=0, sweep=(0.05, 1.0)
    )
    page_size: int = param(16, "tokens of a page", ge=1, sweep=(8, 16, 32))
    skip_layers: int = param(2, "first layers that read everything", ge=0, sweep=(0, 1, 2))
    group: GroupReduction = param("max", "how the bounds of the query heads that share a key-value head are made one")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.token_budget <= (1.0 if isinstance(self.token_budget, float) else MOST):
            raise ParameterError(
                f"{self.name}: token_budget={self.token_budget} is not allowed; allowed is a count of 1 or more, or a "
                "share above 0.0 and at most 1.0"
            )

    def select(self, step: Step) -> Sequence[Part] | None:
        """The tokens of the chosen pages and of the newest."""
        if step.layer < self.skip_layers:
            return None
        size, held = self.page_size, tokens_held(step)
        older = ((held - 1) // size).clamp(min=0)  # the pages before the one that the newest token is in; all are full
        chosen = torch.minimum((read_count(self.token_budget, held) // size).clamp(min=1) - 1, older)
        if bool((chosen == older).all()):
            return None
        best = self.bounds(step, older).topk(int(chosen.max()), dim=-1).indices
        best = best.masked_fill(torch.arange(best.shape[-1], device=best.device) >= chosen, -1)
        token = torch.arange(size, device=best.device)
        ranks = torch.where(best.unsqueeze(-1) < 0, -1, best.unsqueeze(-1) * size + token)
        newest = older * size + token[: int((held - older * size).max())]
        tokens = torch.cat([ranks.flatten(2), newest.expand(-1, best.shape[1], -1)], dim=-1)
        return [Part(slots_of(step, tokens))]

    def bounds(self, step: Step, older: Int[Tensor, "batch heads 1"]) -> Float[Tensor, "batch kv_head page"]:
        """u of the first `older` pages of each row, which are full; -inf behind them."""
        self._note(step, older)
        pages = int(older.max())
        extremes = step.memory["extremes"][:, :, :pages]
        query = rearrange(step.query, "b (kv group) 1 dim -> b kv group dim", kv=step.kv_head)
        signed = torch.cat([F.relu(query), -F.relu(-query)], dim=-1)
        u = rearrange(signed @ extremes.transpose(-1, -2), "b kv group page -> b (kv group) page")
        beyond = torch.arange(pages, device=u.device) >= older
        return step.per_kv_head(u, self.group).masked_fill(beyond, float("-inf"))

    def _note(self, step: Step, older: Int[Tensor, "batch heads 1"]) -> None:
        """Writes down the extremes [largest, smallest] of the pages that have become full since the last time."""
        noted = step.memory.get("pages", torch.zeros_like(older))
        new = int((older - noted).max())
        if not new:
            return
        pages = noted + torch.arange(new, device=noted.device)
        token = torch.arange(self.page_size, device=noted.device)
        keys = _keys_at(step, slots_of(step, (pages.unsqueeze(-1) * self.page_size + token).flatten(2)))
        paged = rearrange(keys, "b kv (page n) dim -> b kv page n dim", n=self.page_size)
        extremes = torch.cat([paged.amax(dim=3), paged.amin(dim=3)], dim=-1)
        # rows that have fewer new pages write what no query reads before it is written again
        memory = _with_room(step.memory.get("extremes"), extremes, int(pages.max()) + 1)
        memory.scatter_(2, pages.unsqueeze(-1).expand_as(extremes), extremes)
        step.memory.update(extremes=memory, pages=older)


def _keys_at(step: Step, slots: Int[Tensor, "batch heads n"]) -> Float[Tensor, "batch kv_head n head_dim"]:
    """The keys at these slots, rotated as in the text; negative ones give what may be."""
    keys = step.store.key_column.gather(slots).to(slots.device)
    if not step.raw:
        return keys
    assert step.rotor is not None
    return step.rotor.rotate(keys, step.rotor.text(step.store.positions_at(slots)))


def _with_room(
    before: Float[Tensor, "batch kv_head held two_dim"] | None,
    like: Float[Tensor, "batch kv_head new two_dim"],
    pages: int,
) -> Float[Tensor, "batch kv_head room two_dim"]:
    """The memory, with room for so many pages; while decoding it grows by a sixteenth, so that few pages copy it."""
    if before is not None and before.shape[2] >= pages:
        return before
    held = 0 if before is None else before.shape[2]
    room = pages if before is None else max(pages, held + max(HEADROOM, held // 16))
    grown = like.new_zeros((*like.shape[:2], room, like.shape[3]))
    if before is not None:
        grown[:, :, :held] = before
    return grown
