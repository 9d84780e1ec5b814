"""Reading all texts through the whole model, and through a model of which blocks are passed by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pith.core import InputError, Method, ParameterError
from pith.weights.calibration import Calibration

States = Float[Tensor, "batch token hidden"]
Watcher = Callable[[States], None]


def unread(
    calibration: Calibration, kept: Mapping[str, Tensor], key: str = "sums"
) -> Iterator[Int[Tensor, "batch token"]]:
    """The batches that were not yet read, and after each one the sums over those that were are kept.

    Args:
        calibration: the texts.
        kept: the sums, which the reader adds to in place; those of a try that was stopped are put into them.
        key: under which they are kept.

    Raises:
        InputError: there are no texts.
    """
    batches, done = calibration.batches, 0
    if not calibration.tokens.numel():
        raise InputError("reading texts needs a calibration, such as pith.calibration(tokenizer)")
    earlier = calibration.recall(key)
    if earlier is not None:
        done = int(earlier["batches"])
        for name, sums in kept.items():
            sums.copy_(earlier[name])
    for index in range(done, len(batches)):
        calibration.told(index, len(batches))
        yield batches[index]
        calibration.remember(key, {**kept, "batches": torch.tensor(index + 1)})
    calibration.told(len(batches), len(batches))


@contextmanager
def watched(reads: Mapping[nn.Module, Watcher], gives: Mapping[nn.Module, Watcher] | None = None) -> Iterator[None]:
    """While a model runs, watchers are shown what their modules read, and what their modules give."""

    def before(watcher: Watcher) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            watcher((args[0] if args else kwargs["hidden_states"]).detach())

        return hook

    def after(watcher: Watcher) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            watcher((output[0] if isinstance(output, tuple) else output).detach())

        return hook

    with ExitStack() as hooks:
        for module, watcher in reads.items():
            hooks.callback(module.register_forward_pre_hook(before(watcher), with_kwargs=True).remove)
        for module, watcher in (gives or {}).items():
            hooks.callback(module.register_forward_hook(after(watcher)).remove)
        yield


@contextmanager
def passed_by(layers: list[nn.Module], states: States | None = None) -> Iterator[None]:
    """While it lasts, blocks hand on what they read, and compute nothing.

    Args:
        layers: the blocks.
        states: what the last of them hands on instead.
    """

    def hand_on(hidden_states: States, *args: Any, **kwargs: Any) -> States:
        return hidden_states

    def give(hidden_states: States, *args: Any, **kwargs: Any) -> States:
        return hidden_states if states is None else states

    before = [vars(layer).get("forward") for layer in layers]
    try:
        for index, layer in enumerate(layers):
            layer.forward = give if index == len(layers) - 1 else hand_on
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            del layer.forward
            if own is not None:
                layer.forward = own


def negative_log_likelihood(model: Any, tokens: Int[Tensor, "batch token"]) -> float:
    """The sum over sequences of their mean loss times their length."""
    logits = model(input_ids=tokens.to(model.device), use_cache=False).logits[:, :-1].float()
    mean = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten().to(model.device))
    return float(mean.double() * tokens.numel())


def count_of(method: Method, name: str, value: int | float, total: int) -> int:
    """How many of `total` a parameter means: a whole number is a count, any other a share, which is rounded up.

    Raises:
        ParameterError: it is a share above 1.
    """
    if isinstance(value, int):
        return value
    if value > 1:
        raise ParameterError(
            f"{method.name}: {name}={value} is not allowed; allowed is a share from 0.0 to 1.0, or a whole number"
        )
    return math.ceil(round(value * total, 9))
