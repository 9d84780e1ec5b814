"""The attention runtime: what a method of the first four contracts acts through.

It stands on Transformers' public interfaces for attention, masks and caches; nothing is patched, and importing it
changes nothing outside Pith. `LayerCache` owns what one layer holds; `Step` is what a method sees of it.
"""

from pith.attention.cache import PithCache
from pith.attention.companion import Companion
from pith.attention.eviction import Allocation, Eviction, Retention, Seat
from pith.attention.layer import LayerCache
from pith.attention.reading import Part, Reading
from pith.attention.runtime import AttentionRuntime
from pith.attention.shared_prompt import SharedPrompt, sharing_prompts
from pith.attention.step import GroupReduction, Step
from pith.attention.storage import Context, Packed, Storage
from pith.attention.store import Store

__all__ = [
    "Allocation",
    "AttentionRuntime",
    "Companion",
    "Context",
    "Eviction",
    "GroupReduction",
    "LayerCache",
    "Packed",
    "Part",
    "PithCache",
    "Reading",
    "Retention",
    "Seat",
    "SharedPrompt",
    "Step",
    "Storage",
    "Store",
    "sharing_prompts",
]
