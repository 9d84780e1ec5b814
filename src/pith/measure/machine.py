"""What this machine can do at best: copying, and multiplying matrices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from statistics import median

import torch

from pith.measure.seconds import now

COPIED = 256 * 2**20
"""Bytes of the tensor that is copied on the processor: more than its caches hold."""

_REPEATS = 7


def copy_bandwidth(device: torch.device | str) -> float:
    """Bytes per second of a plain copy of a large tensor, those read and those written together.

    The median of seven copies after one that is not counted; measured once a process for each device and number of
    threads. On an accelerator the tensor is four times as large, for its caches and its speed.
    """
    return _copy_bandwidth(torch.device(device), torch.get_num_threads())


@functools.cache
def _copy_bandwidth(device: torch.device, threads: int) -> float:
    size = COPIED if device.type == "cpu" else 4 * COPIED
    source = torch.zeros(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / _seconds(lambda: target.copy_(source), device)


def matrix_throughput(dtype: torch.dtype, device: torch.device | str) -> float:
    """Floating-point operations per second of a product of square matrices, two for each pair that is multiplied.

    Their side is doubled from 256 on until a product takes ten milliseconds, which shows what the device reaches when
    it has enough to do.
    """
    return _matrix_throughput(dtype, torch.device(device), torch.get_num_threads())


@functools.cache
def _matrix_throughput(dtype: torch.dtype, device: torch.device, threads: int) -> float:
    side, taken = 128, 0.0
    while taken < 0.01 and side < 16384:
        side *= 2
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        begun = now(device)
        left @ right
        taken = now(device) - begun
    return 2 * side**3 / _seconds(lambda: left @ right, device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The median time of a piece of work, after one that is not counted."""
    times = []
    for _ in range(_REPEATS + 1):
        begun = now(device)
        work()
        times.append(now(device) - begun)
    return median(times[1:])
