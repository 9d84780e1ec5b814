"""Whether other work took processors away while times were measured."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

EVERY = 0.2
"""Seconds between two looks at what the machine runs."""

_RUNNING = Path("/proc/loadavg")


class Crowding:
    """What the machine ran while times were measured.

    Attributes:
        running: at each look, how many threads of the whole machine ran or waited for a processor; without this one.
    """

    def __init__(self) -> None:
        self.running: list[int] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at the machine, from a thread of its own, as long as what is inside runs."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(EVERY):
                if (found := runnable()) is not None:
                    self.running.append(found)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @property
    def reason(self) -> str:
        """Why the times are not to be trusted; empty where nothing speaks against them."""
        threads, mine, cores = torch.get_num_threads(), usable_cores(), os.cpu_count() or 1
        advice = "times are not to be trusted; measure again, in another folder,"
        if threads > mine:
            return (
                f"PyTorch used {threads} threads on {mine} processors: {advice} with at most {mine} (OMP_NUM_THREADS)"
            )
        busy = median(self.running) if self.running else 0
        if busy > cores:
            return f"{busy:g} threads wanted the machine's {cores} processors: {advice} when nothing else runs"
        return ""


def runnable() -> int | None:
    """Return how many threads of the whole machine run or wait for a processor, but for this one; None if not known."""
    try:
        return int(_RUNNING.read_text(encoding="ascii").split()[3].partition("/")[0]) - 1
    except (OSError, ValueError, IndexError):  # other systems have no such file
        return None


def usable_cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
