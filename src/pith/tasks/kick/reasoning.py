"""Putting several facts together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pith.tasks.generated import default
from pith.tasks.tracing import Tracing


@dataclass(frozen=True, kw_only=True)
class KickReasoning(Tracing):
    """How often the model puts several facts together: the share of chains that it spells down to their numbers.

    The chains of `tracing`, four of four steps, interleaved. A guesser spells one of them. The interval is Wilson's.

    Deviates from LLM-KICK (arXiv 2310.01382), whose questions for reasoning are those of MMLU.
    """

    name: ClassVar[str] = "kick_reasoning"

    hops: int = default(Tracing, "hops", 4)
    chains: int | None = default(Tracing, "chains", 4)
