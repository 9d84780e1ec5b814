"""Quest: a query reads the pages of the cache that could hold a key it agrees with most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from pith.attention import GroupReduction, Part, Reading, Step
from pith.attention.reading import read_count
from pith.core import Paper, param


@dataclass(frozen=True, kw_only=True)
class Quest(Reading):
    """Decoded tokens read whole pages of the cache, those with the highest bound on q k, and the newest page.

        M, m    = the largest and the smallest of each channel of a page's keys
        u(page) = sum_c max(q_c M_c, q_c m_c) >= q k  for every key k of the page
        read    = the newest page and the (token_budget / page_size - 1) pages with the largest u      (section 3.3)

    A prompt is read densely, and so are the first layers. Nothing is evicted: it saves time, not bytes.

    Deviates: the paper's models have a key-value head for each query head; with grouped queries the bounds of a group
    are reduced to one, so that a key-value head's pages are read once. The newest page is always read, as in the
    authors' kernels; their evaluation code does not force it, and reads three pages at least.
    """

    paper: ClassVar[Paper] = Paper(
        "2406.10774",
        "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference",
        "Jiaming Tang, Yilong Zhao, Kan Zhu, Guangxuan Xiao, Baris Kasikci, Song Han",
        2024,
        "mit-han-lab/Quest",
    )

    token_budget: float | int = param(1024, "tokens that a query reads, or their share of what is stored", ge=0)
    page_size: int = param(16, "tokens of a page", ge=1)
    skip_layers: int = param(2, "first layers that read everything", ge=0)
    group: GroupReduction = param("max", "how the bounds of the query heads that share a key-value head are made one")

    def select(self, step: Step) -> Sequence[Part] | None:
        """The tokens of the chosen pages and of the newest."""
        size = self.page_size
        newest = (step.stored - 1) // size  # the page that the newest token is in
        pages = max(read_count(self.token_budget, step.stored) // size, 1)
        if step.layer < self.skip_layers or newest + 1 <= pages:
            return None
        bounds = self.bounds(step, newest)
        chosen = bounds.topk(pages - 1, dim=-1).indices.sort(dim=-1).values
        tokens = torch.arange(size, device=chosen.device)
        older = rearrange(chosen.unsqueeze(-1) * size + tokens, "b h page token -> b h (page token)")
        last = torch.arange(newest * size, step.stored, device=chosen.device).expand(*older.shape[:2], -1)
        return [Part(torch.cat([older, last], dim=-1))]

    def bounds(self, step: Step, pages: int) -> Float[Tensor, "batch kv_head page"]:
        """u of the first `pages` pages, which are full."""
        self._note(step, pages)
        group = step.query.shape[1] // step.kv_head
        query = rearrange(step.query, "b (kv group) 1 dim -> b kv group dim", group=group)
        high, low = (step.memory[name][:, :, :pages].transpose(-1, -2) for name in ("highest", "lowest"))
        u = F.relu(query) @ high - F.relu(-query) @ low
        return step.per_kv_head(rearrange(u, "b kv group page -> b (kv group) page"), self.group)

    def _note(self, step: Step, pages: int) -> None:
        """Writes down the extremes of the pages that have become full since the last time."""
        known = step.memory["highest"].shape[2] if "highest" in step.memory else 0
        if pages <= known:
            return
        slots = torch.arange(known * self.page_size, pages * self.page_size, device=step.query.device)
        keys = step.keys[:, :, slots] if known == 0 else step.store.gather(slots.expand(len(step.query), 1, -1))[0]
        for name, reduce, worst in (("highest", torch.amax, -1.0), ("lowest", torch.amin, 1.0)):
            paged = keys
            if step.padded:
                gone = ~step.real[:, :, slots].unsqueeze(-1)
                paged = keys.masked_fill(gone, worst * torch.finfo(keys.dtype).max)
            extremes = reduce(rearrange(paged, "b h (page n) dim -> b h page n dim", n=self.page_size), dim=3)
            before = step.memory.get(name)
            step.memory[name] = extremes if before is None else torch.cat([before, extremes], dim=2)
