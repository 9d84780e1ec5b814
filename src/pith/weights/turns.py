"""Timing a few short pieces of work by turns, so that what disturbs the machine falls on all of them."""

from __future__ import annotations

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
        _timed(call, device)
    for number in range(rounds):
        if number >= at_least and time.perf_counter() - begun > seconds:
            break
        for turn in range(len(calls)):
            which = (turn + number) % len(calls)
            took[which].append(_timed(calls[which], device))
    return took


def _timed(call: Callable[[], object], device: torch.device) -> float:
    begun = time.perf_counter()
    call()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - begun
