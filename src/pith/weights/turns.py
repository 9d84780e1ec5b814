"""Timing two short pieces of work by turns, so that what disturbs the machine falls on both."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch


def by_turns(
    calls: Sequence[Callable[[], object]], device: torch.device, *, rounds: int, seconds: float, at_least: int = 3
) -> list[list[float]]:
    """Return the seconds that each call took in each round: one list for each call, of equal lengths.

    Before the rounds each call runs once untimed. Which call goes first rotates from round to round.

    Args:
        calls: what is timed.
        device: where it runs; an accelerator is waited for.
        rounds: at most.
        seconds: after so many no further round begins.
        at_least: rounds that are taken however long they last.
    """
    took: list[list[float]] = [[] for _ in calls]
    begun = time.perf_counter()
    for call in calls:
        timed(call, device)
    for number in range(rounds):
        if number >= at_least and time.perf_counter() - begun > seconds:
            break
        for turn in range(len(calls)):
            which = (turn + number) % len(calls)
            took[which].append(timed(calls[which], device))
    return took


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that a call takes, the device's work included."""
    begun = time.perf_counter()
    call()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - begun


def outermost(n: int) -> int:
    """How many of n values on each side may be left out of a 95% interval of their median."""
    below, k = 1 / 2**n, 0  # the probability that at most k of n fall below the true median
    while below + math.comb(n, k + 1) / 2**n <= 0.025:
        k += 1
        below += math.comb(n, k) / 2**n
    return k
