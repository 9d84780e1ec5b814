"""What machine this is."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_MEMORY = Path("/proc/meminfo")
_LIMIT, _HELD = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
"""What the processes of a container may hold together, and what they hold."""


@cache
def processor() -> str:
    """Return the processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def free_memory() -> int | None:
    """Return the bytes of main memory that this process can still take; None where the system does not tell."""
    try:
        lines = _MEMORY.read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):  # other systems have no such file
        return None
    try:
        return min(free, int(_LIMIT.read_text(encoding="ascii")) - int(_HELD.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no container, or one without a limit, which is written as "max"
        return free
