"""How the process's allocator treats memory that was freed."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)

KEPT = 1 << 30
"""Bytes of freed memory that a process keeps at most."""


def keep_freed_memory(most: int = KEPT) -> bool:
    """Make this process keep memory that it frees, instead of returning it to the system at once.

    A forward on a processor allocates and frees tensors of tens of megabytes. By default glibc maps each of them anew,
    and the system clears every page again: a tenth of the time of a prompt (`benchmarks/allocator.py`). It is for a
    process of its own, such as a command, since it holds for everything that the process does.

    Args:
        most: bytes that are kept at most.

    Returns:
        Whether the allocator takes the setting; only glibc does.
    """
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    return set_option is not None and all(set_option(option, most) for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))
