"""Thread-local handover of a cache layer from `update` to the attention function, which does not receive the cache.

Transformers calls a cache layer's `update` and then the attention function. The first puts the layer here, the second
takes it. A handover that is lost is an error: attention over the new tokens alone would be another text.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import torch

from pith.attention.uncompiled import uncompiled
from pith.core import ModelError


class CacheGroup:
    """The layers of one cache that Pith manages; each cache, also a copy, has its own.

    Args:
        managed: their indices.
        depth: the number of all layers.
    """

    def __init__(self, managed: Iterable[int], depth: int) -> None:
        self.managed = frozenset(managed)
        self.last = max(self.managed, default=-1)
        self.all_managed = len(self.managed) == depth


class _Slot(threading.local):
    layer: Any = None  # what waits for its attention
    group: CacheGroup | None = None  # of the cache of the forward that runs


_slot = _Slot()


def put(layer: Any) -> None:
    """Hand a `LayerCache` over.

    Raises:
        ModelError: a layer of the same cache still waits, so the model's attention does not reach Pith.
    """
    if torch.compiler.is_compiling():
        _put(layer)
        return
    waiting, _slot.layer, _slot.group = _slot.layer, layer, layer.group
    if waiting is not None and waiting.group is layer.group:
        clear()
        raise _not_reached(waiting)


_put = uncompiled(put)


def take(index: int | None) -> Any:
    """Return the `LayerCache` that waits, if it has this index; None if the layer is not one of Pith's.

    Raises:
        ModelError: Pith manages the layer in the cache of this forward, and nothing was handed over.
    """
    layer, group = _slot.layer, _slot.group
    if layer is not None and (index is None or layer.index == index):
        _slot.layer = None
        if group is not None and layer.index == group.last:
            _slot.group = None
        return layer
    if group is not None and (index in group.managed or (index is None and group.all_managed)):
        clear()
        raise ModelError(
            f"the cache of layer {index} did not reach its attention: the model does not update it once before each "
            "attention, which Pith needs"
        )
    return None


def clear() -> None:
    """Forget what waits: a forward begins, or ended, or was interrupted."""
    _slot.layer = _slot.group = None


def require_taken() -> None:
    """Raise if a layer still waits at the end of a forward.

    Raises:
        ModelError: it does.
    """
    if _slot.layer is not None:
        raise _not_reached(_slot.layer)


def _not_reached(layer: Any) -> ModelError:
    return ModelError(
        f"the attention of layer {layer.index} did not reach Pith: the model's attention implementation was "
        "changed, or a pass was interrupted; make a new cache"
    )
