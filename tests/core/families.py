"""Stand-ins of families whose methods take methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import ClassVar
from unittest import mock

from pith.attention import Allocation, Eviction
from pith.cache.random_eviction import RandomEviction
from pith.cache.snapkv import SnapKV
from pith.core import Method, Paper, param, registry

STAND_IN = Paper("", "A stand-in", "The Pith authors", 2026)


@dataclass(frozen=True, kw_only=True)
class PerHead(Allocation):
    """Divide over heads."""

    paper: ClassVar[Paper] = STAND_IN

    floor: float = param(0.5, "what every head keeps", ge=0, le=1)
    of: Eviction | Allocation = param(default=SnapKV(), doc="whose pairs are kept")


@dataclass(frozen=True, kw_only=True)
class PerLayer(Allocation):
    """Divide over layers, with a second method beside the first."""

    paper: ClassVar[Paper] = STAND_IN

    of: Eviction = field(default_factory=SnapKV, metadata={"doc": "whose pairs are kept"})
    beside: Eviction | None = param(None, "what keeps pairs too")


@dataclass(frozen=True, kw_only=True)
class Coarse(Method):
    """Store with few bits; it has no budget."""

    paper: ClassVar[Paper] = STAND_IN
    question: ClassVar[str] = "how are pairs stored?"
    contract: ClassVar[str] = "storage"

    bits: int = param(2, "bits", ge=1)


@contextmanager
def registered() -> Iterator[None]:
    """Registers the stand-ins and two evictions, and nothing else."""
    found = [SnapKV, RandomEviction, PerHead, PerLayer, Coarse]
    points = [SimpleNamespace(name=one.name, load=lambda one=one: one) for one in found]
    try:
        with mock.patch.object(registry, "entry_points", return_value=points):
            registry.methods.cache_clear()
            yield
    finally:
        registry.methods.cache_clear()
