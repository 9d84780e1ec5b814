"""Whether packed layers are slower than dense ones on this machine, and what to do about it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from pith.weights import int4
from pith.weights.packed import GroupedLinear, Int8Linear, PackedLinear
from pith.weights.turns import by_turns, outermost, timed

_ROUNDS, _AT_LEAST, _SECONDS = 15, 6, 0.05
"""Pairs of runs: at most, at least, and the seconds after which none follows. Six pairs have a 95% interval."""

_SLOWER = 1.1
"""A layer whose interval reaches below this ratio is not called slower."""

_NOTICED = 1e-3
"""Seconds of a token, over all layers of a kind, below which a difference is not worth a word."""


@dataclass(frozen=True)
class Pace:
    """How long one token takes through a packed layer, against a dense one of its shape and dtype.

    Attributes:
        ratio: the median over pairs of runs, packed divided by dense.
        low, high: its 95% interval.
        more: seconds that the packed layer takes more, by the fastest run of each.
    """

    ratio: float
    low: float
    high: float
    more: float


_FOUND: dict[tuple[Any, ...], Pace] = {}
"""What was found of each kind and shape; measured once in a process."""


def slower(model: Any) -> list[str]:
    """Return a line for each kind of packed layer of a model that reads one token more slowly than a dense layer would.

    Of each kind the largest layer is timed, beside a dense one of its shape and dtype, by turns. Nothing is said where
    the interval of the ratio does not exclude chance, or where a token takes less than a millisecond longer in all.
    """
    kinds: dict[tuple[Any, ...], list[PackedLinear]] = {}
    for layer in model.modules():
        if isinstance(layer, PackedLinear):
            kinds.setdefault((layer.bits, layer.fast, layer.scales.dtype, layer.scales.device.type), []).append(layer)
    lines = []
    for layers in kinds.values():
        largest = max(layers, key=_weights)
        count = sum(map(_weights, layers)) / _weights(largest)
        found = _pace(largest, count)
        if found is not None and found.low > _SLOWER and found.more * count >= _NOTICED:
            lines.append(
                f"weights of {largest.bits} bits save memory, not time: here one token takes {found.ratio:.1f} times "
                f"({found.low:.1f} to {found.high:.1f}) as long as through a dense layer of {largest.in_features} x "
                f"{largest.out_features}{remedy(largest)}"
            )
    return lines


def pace(layer: PackedLinear) -> Pace:
    """Time one token through a packed layer and through a dense one of its shape and dtype, by turns."""
    weight = layer.dense()
    token = torch.ones(1, layer.in_features, dtype=weight.dtype, device=weight.device)
    calls = (lambda: layer(token), lambda: F.linear(token, weight, layer.bias))
    with torch.no_grad():
        packed, dense = by_turns(calls, weight.device, rounds=_ROUNDS, seconds=_SECONDS, at_least=_AT_LEAST)
    ratios = sorted(mine / other for mine, other in zip(packed, dense, strict=True))
    k = outermost(len(ratios))
    more = min(packed) - min(dense)
    return Pace(statistics.median(ratios), ratios[k], ratios[-1 - k], more)


def remedy(layer: PackedLinear) -> str:
    """Return what makes such layers faster, as the end of a sentence; empty where nothing is known to."""
    if layer.fast:
        return "; bits=4 is faster, which the kernel reads as it is" if layer.bits in (2, 3) else ""
    shape, needed = (layer.bits, layer.out_features, layer.in_features), []
    there_is = layer.scales.device.type == "cpu"
    if isinstance(layer, GroupedLinear) and not int4.fits_kernel(*shape, layer.group_size):
        fitting = [size for size in (128, 64, 32) if int4.fits_kernel(*shape, size)]
        there_is = there_is and bool(fitting)
        needed += [f"group_size={size}" for size in fitting[:1]]
    elif isinstance(layer, Int8Linear):
        there_is = there_is and layer.in_features % 16 == 0
    if layer.scales.dtype != torch.bfloat16:
        needed.append("dtype='bfloat16'")
    without = "; each forward decodes them, since there is no kernel for them"
    return f"{without}: for few tokens there is one with {' and '.join(needed)}" if there_is else f"{without} here"


def _pace(layer: PackedLinear, count: float) -> Pace | None:
    """Return what is known of a layer, or measure it; None where so few and small ones are too fast to matter."""
    key = (type(layer), layer.bits, layer.fast, layer.scales.dtype, layer.scales.device.type, layer.in_features,
           layer.out_features, layer.scales.shape, torch.get_num_threads())  # fmt: skip
    if key not in _FOUND:
        token = torch.ones(1, layer.in_features, dtype=layer.scales.dtype, device=layer.scales.device)
        with torch.no_grad():
            layer(token)
            if timed(lambda: layer(token), token.device) * count < _NOTICED:
                return None
        _FOUND[key] = pace(layer)
    return _FOUND[key]


def _weights(layer: PackedLinear) -> int:
    return layer.in_features * layer.out_features
