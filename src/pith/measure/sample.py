"""Timing a few layers of a model that stand for all of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from pith.measure.bytes import cache_bytes
from pith.measure.seconds import Run, Whole, now, run_once
from pith.models import Subject

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
        with self._only() as counted:
            return run_once(subject, prompt, tokens, counted)

    @contextmanager
    def _only(self) -> Iterator[Whole]:
        """Only the chosen layers compute, and a clock stands at their doors; nothing of that is left on exit."""
        if self.whole or self.layers is None:
            yield Whole()
            return
        clock = _Clock(self.stands_for, self._device)
        with ExitStack() as stack:
            for index, layer in enumerate(self.layers):
                if index in self.stands_for:
                    stack.callback(layer.register_forward_pre_hook(clock.enters).remove)
                    stack.callback(layer.register_forward_hook(clock.leaves(index)).remove)
                else:
                    stack.enter_context(_passing(layer, clock))
            yield clock


class _Clock(Whole):
    """Takes down when layers are entered and left, and counts each as often as it stands for layers.

    Attributes:
        tuples: whether layers give their hidden states back in a tuple.
    """

    def __init__(self, stands_for: dict[int, float], device: torch.device) -> None:
        self._stands_for, self._device = stands_for, device
        self._entered: Any = None
        self._marks: list[tuple[int, Any, Any]] = []
        self.tuples = False

    def seconds(self, total: float) -> float:
        """What all layers take; the device has done its work."""
        for index, begun, ended in self._marks:
            taken = ended - begun if isinstance(ended, float) else begun.elapsed_time(ended) / 1e3
            total += (self._stands_for[index] - 1) * taken
        self._marks.clear()
        return total

    def bytes(self, cache: Any) -> int:
        """What all layers hold."""
        held = {index: cache_bytes(SimpleNamespace(layers=[cache.layers[index]])) for index in self._stands_for}
        return round(cache_bytes(cache) + sum((self._stands_for[index] - 1) * held[index] for index in held))

    def enters(self, layer: nn.Module, args: Any) -> None:
        self._entered = self._mark()

    def leaves(self, index: int) -> Callable[[nn.Module, Any, Any], None]:
        def leave(layer: nn.Module, args: Any, out: Any) -> None:
            self._marks.append((index, self._entered, self._mark()))
            self.tuples = isinstance(out, tuple)

        return leave

    def _mark(self) -> Any:
        """The time; with CUDA an event, for which nobody waits."""
        if self._device.type != "cuda":
            return now(self._device)
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
