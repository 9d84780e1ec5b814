"""The attention runtime: what a method of the first four contracts acts through.

It stands on Transformers' public interfaces for attention, masks and caches; nothing is patched, and importing it
changes nothing outside Pith. `LayerCache` owns what one layer holds; `Step` is what a method sees of it.
"""

from pith.attention.cache import AttentionRuntime, PithCache
from pith.attention.eviction import Eviction
from pith.attention.layer import LayerCache
from pith.attention.step import GroupReduction, Step

__all__ = ["AttentionRuntime", "Eviction", "GroupReduction", "LayerCache", "PithCache", "Step"]
