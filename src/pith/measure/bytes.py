"""Bytes that a cache really holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


def cache_bytes(cache: Any) -> int:
    """The bytes of every storage that a Transformers cache's layers hold, each once.

    A view counts with the whole storage that it keeps alive, so that masking, zeroing or slicing saves nothing here.
    A layer that says what it holds (`tensors()`) is believed; of any other, all attributes are searched, to any depth.
    """
    seen: set[int] = set()
    tensors = [
        t for layer in cache.layers for t in (layer.tensors() if hasattr(layer, "tensors") else held(layer, seen))
    ]
    tensors += cache.tensors() if hasattr(cache, "tensors") else ()  # what belongs to no layer, such as a companion's
    storages = {(t.device, t.untyped_storage().data_ptr()): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def held(thing: Any, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor that can be reached from an object through attributes, lists, tuples, sets and dictionaries.

    Args:
        thing: where to begin; modules of the model are not the cache's and are passed over.
        seen: the ids of objects that were searched already; it grows.
    """
    if id(thing) in seen or isinstance(thing, nn.Module | type):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from held(value, seen)
    elif isinstance(thing, list | tuple | set):
        for value in thing:
            yield from held(value, seen)
    elif hasattr(thing, "__dict__"):
        yield from held(vars(thing), seen)
