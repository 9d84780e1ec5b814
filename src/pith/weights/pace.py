"""Whether packed layers are slower than dense ones on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from pith.weights.packed import PackedLinear

_RUNS = 7
_SECONDS = 0.05
"""No more than the runs that fit in here are taken, but three."""

_SLOWER = 1.1
"""What is no slower than this is not worth a word: so much times differ by chance."""

_FOUND: dict[tuple[Any, ...], float] = {}
"""How many times as long a packed layer took as the dense one, by what it is; measured once in a process."""


def slower(model: Any) -> list[str]:
    """A line for each kind of packed layer of a model that reads one token more slowly than a dense layer would.

    Of each kind the largest layer is timed, beside a dense one of its shape and dtype, in turns.
    """
    largest: dict[tuple[Any, ...], PackedLinear] = {}
    for layer in model.modules():
        if isinstance(layer, PackedLinear):
            dtype, device = layer.scales.dtype, layer.scales.device.type
            other = largest.setdefault((layer.bits, layer.fast, dtype, device), layer)
            if layer.codes.numel() > other.codes.numel():
                largest[(layer.bits, layer.fast, dtype, device)] = layer
    lines = []
    for (bits, fast, dtype, device), layer in largest.items():
        key = (bits, fast, dtype, device, layer.in_features, layer.out_features)
        if key not in _FOUND:
            _FOUND[key] = times_as_long(layer)
        if _FOUND[key] > _SLOWER:
            why = "" if fast else "; there is no kernel for them, so that each forward decodes them"
            hint = " (with dtype=bfloat16 there may be)" if device == "cpu" and dtype != torch.bfloat16 else ""
            lines.append(
                f"weights of {bits} bits save memory, not time: here one token takes {_FOUND[key]:.1f} times as long "
                f"as through a dense layer of {layer.in_features} x {layer.out_features}{why}{hint}"
            )
    return lines


def times_as_long(layer: PackedLinear) -> float:
    """The median time of one token through a packed layer, as a multiple of that through a dense layer."""
    weight = layer.dense()
    token = torch.ones(1, layer.in_features, dtype=weight.dtype, device=weight.device)
    bias = layer.bias
    both: tuple[Callable[[], Any], Callable[[], Any]] = (lambda: layer(token), lambda: F.linear(token, weight, bias))
    took: tuple[list[float], list[float]] = ([], [])
    begun = time.perf_counter()
    with torch.no_grad():
        for run in range(_RUNS + 1):
            for times, call in zip(took, both, strict=True):
                times.append(_timed(call, weight.device))
            if run >= 3 and time.perf_counter() - begun > _SECONDS:
                break
    packed, dense = (statistics.median(times[1:]) for times in took)  # the first is to warm up
    return packed / dense


def _timed(call: Callable[[], Any], device: torch.device) -> float:
    begun = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun
