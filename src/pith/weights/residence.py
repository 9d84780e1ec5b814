"""Whether all tensors of a model are in memory."""

from __future__ import annotations

from typing import Any

from pith.core import ModelError


def require_in_memory(model: Any) -> None:
    """Refuse a model of which tensors are on no device, such as layers that a device map left on the disk.

    Raises:
        ModelError: a parameter or buffer is a "meta" tensor.
    """
    away = [name for held in (model.named_parameters(), model.named_buffers()) for name, one in held if one.is_meta]
    if away:
        raise ModelError(
            f"{type(model).__name__} has {len(away)} tensors that are not in memory (on 'meta' or offloaded), such as "
            f"{away[0]}; load it without device_map, or with one that leaves no layer on the disk"
        )
