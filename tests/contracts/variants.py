"""Every registered method as recipes that the laws can run on tiny models: one that leaves all, one that is tight."""

from __future__ import annotations

import pith
from pith.attention import Allocation, Eviction, Reading, Retention, Storage

METHODS = pith.methods()

EVICTIONS = [name for name, m in METHODS.items() if issubclass(m, Eviction)]
"""Those that have a budget of their own."""

COMBINATORS = [name for name, m in METHODS.items() if issubclass(m, Allocation)]
"""Those that divide another method's budget."""

RETENTIONS = [name for name, m in METHODS.items() if issubclass(m, Retention)]
STORAGES = [name for name, m in METHODS.items() if issubclass(m, Storage)]
READINGS = [name for name, m in METHODS.items() if issubclass(m, Reading)]

EVERYTHING: dict[str, str] = {
    "quest": "quest(token_budget=1.0)",
}
"""Recipes under which a method without a budget gives the dense model."""

TIGHT: dict[str, str] = {
    "quest": "quest(token_budget=8, page_size=4, skip_layers=0)",
    "kv_cache_int8": "kv_cache_int8()",
}
"""Recipes under which it does not."""


def at_budget(name: str, budget: object) -> str:
    """An eviction, or the default eviction in a combinator, at a budget."""
    return f"{name}(snapkv(budget={budget}))" if name in COMBINATORS else f"{name}(budget={budget})"


def everything(name: str) -> str:
    """The method where it drops nothing and reads everything."""
    return EVERYTHING.get(name) or at_budget(name, 1.0)


def tight(name: str) -> str:
    """The method where it matters."""
    return TIGHT.get(name) or at_budget(name, 0.3)
