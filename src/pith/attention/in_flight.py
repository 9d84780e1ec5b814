"""The layer whose attention the model computes next, one a thread.

Transformers calls a cache layer's `update` and then the attention function, which is not told the cache. The layer is
put here by the first and taken by the second.
"""

from __future__ import annotations

import threading
from typing import Any

from pith.core import ModelError


class _Slot(threading.local):
    layer: Any = None


_slot = _Slot()


def put(layer: Any) -> None:
    """Hands a `LayerCache` over.

    Raises:
        ModelError: a layer of the same cache still waits, so the model's attention does not reach Pith.
    """
    waiting, _slot.layer = _slot.layer, layer
    if waiting is not None and waiting.cache_id == layer.cache_id:
        _slot.layer = None
        raise ModelError(
            f"the attention of layer {waiting.index} did not reach Pith: the model's attention implementation was "
            "changed, or a pass was interrupted; make a new cache"
        )


def take(index: int | None) -> Any:
    """The `LayerCache` that waits, if it is the one with this index; else None."""
    layer = _slot.layer
    if layer is None or (index is not None and layer.index != index):
        return None
    _slot.layer = None
    return layer
