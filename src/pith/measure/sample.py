"""Timing a few layers of a model that stand for all of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from pith.measure.bytes import cache_bytes
from pith.measure.seconds import Run, now
from pith.models import Subject
from pith.tasks.stream import Stream

FEW = 4
"""A model of so many layers, and a kind of layer with so many, is timed whole."""


class Sample:
    """Some layers of a model, each of which stands for those near it; the others let everything through as it came.

    Layers of one kind (the sort of attention, the number of weights) stand for each other only: of each kind the first,
    the third, the middle and the last are chosen, and a layer between two of them is taken to lie between them in bytes
    and seconds too. Each layer keeps its index and the model its depth, so that a method that treats layers differently
    does to the chosen ones what it does to them in the whole model.

    Args:
        model: a loaded Transformers causal language model.
        whole: whether to choose all layers.

    Attributes:
        stands_for: for each chosen layer, by its index, how many layers it stands for.
        share: of the layers that are chosen.
    """

    def __init__(self, model: nn.Module, whole: bool = False) -> None:
        self.layers = _layers(model)
        self._device = next(model.parameters()).device
        self.stands_for = _weights(_kinds(model, self.layers), whole or self.layers is None)
        self.whole = self.layers is None or len(self.stands_for) == len(self.layers)
        self.share = 1.0 if self.layers is None else len(self.stands_for) / len(self.layers)

    def run(self, subject: Subject, prompt: Int[Tensor, "batch length"], tokens: int) -> Run:
        """Reads a prompt and decodes with the chosen layers; seconds and bytes as they would be with all.

        What is spent outside of layers (embedding, masks, head, what a method does around a forward) counts as it is.
        """
        with subject.applied() as model, self._only() as clock:
            stream, device = Stream(model), prompt.device
            begun = now(device)
            logits = stream.read(prompt)
            prefill = self._of_all(now(device) - begun, clock.taken())
            prefill_bytes = self._bytes(stream.cache)
            begun = now(device)
            for _ in range(tokens):
                logits = stream.read(logits.argmax(dim=-1, keepdim=True))
            decode = self._of_all(now(device) - begun, clock.taken()) / tokens
            return Run(prefill, decode, prefill_bytes, self._bytes(stream.cache))

    def _of_all(self, total: float, chosen: dict[int, float]) -> float:
        """What all layers take, where `total` has the chosen ones in it once."""
        return total + sum((self.stands_for[index] - 1) * value for index, value in chosen.items())

    def _bytes(self, cache: Any) -> int:
        if self.whole:
            return cache_bytes(cache)
        held = {i: float(cache_bytes(SimpleNamespace(layers=[cache.layers[i]]))) for i in self.stands_for}
        return round(self._of_all(float(cache_bytes(cache)), held))

    @contextmanager
    def _only(self) -> Iterator[_Clock]:
        """Only the chosen layers compute, and a clock stands at their doors; nothing of that is left on exit."""
        clock = _Clock(self._device)
        if self.whole or self.layers is None:
            yield clock
            return
        with ExitStack() as stack:
            for index, layer in enumerate(self.layers):
                if index in self.stands_for:
                    stack.callback(layer.register_forward_pre_hook(clock.enters).remove)
                    stack.callback(layer.register_forward_hook(clock.leaves(index)).remove)
                else:
                    stack.enter_context(_passing(layer, clock))
            yield clock


@dataclass
class _Clock:
    """When layers were entered and left."""

    device: torch.device
    tuples: bool = False
    marks: list[tuple[int, Any, Any]] = field(default_factory=list)
    _entered: Any = None

    def enters(self, layer: nn.Module, args: Any) -> None:
        self._entered = self._mark()

    def leaves(self, index: int) -> Callable[[nn.Module, Any, Any], None]:
        def leave(layer: nn.Module, args: Any, out: Any) -> None:
            self.marks.append((index, self._entered, self._mark()))
            self.tuples = isinstance(out, tuple)

        return leave

    def taken(self) -> dict[int, float]:
        """The seconds spent in each layer since this was last asked; the device has done its work."""
        found: dict[int, float] = {}
        for index, begun, ended in self.marks:
            seconds = ended - begun if isinstance(ended, float) else begun.elapsed_time(ended) / 1e3
            found[index] = found.get(index, 0.0) + seconds
        self.marks.clear()
        return found

    def _mark(self) -> Any:
        """The time; with CUDA an event, for which nobody waits."""
        if self.device.type != "cuda":
            return now(self.device)
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


@contextmanager
def _passing(layer: nn.Module, clock: _Clock) -> Iterator[None]:
    """The layer gives back the hidden states that it is given."""
    before = vars(layer).get("forward")

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (hidden_states,) if clock.tuples else hidden_states

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
        if before is not None:
            layer.forward = before


def _layers(model: Any) -> nn.ModuleList | None:
    """The model's layers; None where no list of modules has as many as its configuration says."""
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    return next((found for found in lists if len(found) == count), None)


def _kinds(model: Any, layers: nn.ModuleList | None) -> list[tuple[str, int]]:
    """What makes layers alike: the sort of their attention, and the number of their weights."""
    if layers is None:
        return []
    config = model.config.get_text_config(decoder=True)
    sorts = getattr(config, "layer_types", None) or [""] * len(layers)
    return [(sort, sum(p.numel() for p in layer.parameters())) for sort, layer in zip(sorts, layers, strict=True)]


def _weights(kinds: list[tuple[str, int]], whole: bool) -> dict[int, float]:
    """For each chosen layer, how many it stands for: the weights of a linear interpolation, summed over all layers."""
    found = dict.fromkeys(range(len(kinds)), 1.0)
    if whole or len(kinds) <= FEW:
        return found
    for kind in set(kinds):
        members = [index for index, one in enumerate(kinds) if one == kind]
        last = len(members) - 1
        chosen = sorted({0, min(2, last), (last + 1) // 2, last}) if last >= FEW else list(range(last + 1))
        for index in members:
            del found[index]
        found |= {members[place]: 0.0 for place in chosen}
        for place in range(last + 1):
            right = min(bisect_right(chosen, place), len(chosen) - 1)
            left = max(right - 1, 0)
            gap = chosen[right] - chosen[left]
            part = (place - chosen[left]) / gap if gap else 0.0
            found[members[chosen[right]]] += part
            found[members[chosen[left]]] += 1 - part
    return dict(sorted(found.items()))
