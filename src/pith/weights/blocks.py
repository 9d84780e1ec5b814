"""The decoder blocks of a model, and reading texts through them one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pith.core import InputError, ModelError
from pith.weights.calibration import Calibration
from pith.weights.duplicate import aligned, settle, tensors_of

Reader = Callable[[Float[Tensor, "token in"]], None]
"""Is given the inputs of a linear layer, every token of a batch."""

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""What a block is given beside hidden states: by position, and by name."""


def blocks(model: Any) -> nn.ModuleList:
    """The model's decoder blocks.

    Raises:
        ModelError: they cannot be found.
    """
    return model.get_submodule(_path(model))  # type: ignore[no-any-return]


def block_name(model: Any, index: int) -> str:
    """The name of a block in the model, such as "model.layers.0"."""
    return f"{_path(model)}.{index}"


def _path(model: Any) -> str:
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    lists: list[str] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and not any(p.isdigit() for p in name.split("."))
    ]
    if len(lists) > 1:  # a tower of another kind may be as deep
        decoder = {id(module) for module in model.get_decoder().modules()}
        lists = [name for name in lists if id(model.get_submodule(name)) in decoder]
    if len(lists) != 1:
        raise ModelError(f"{type(model).__name__} has {len(lists)} lists of {count} blocks; one is needed")
    return lists[0]


@dataclass
class Stage:
    """One block with its inputs, while `walk` stands at it.

    Attributes:
        index: of the block.
        name: of the block in the model, such as "model.layers.0".
        block: the module itself.
        inputs: the hidden states that the block reads, one tensor a batch: [batch, token, hidden].
    """

    index: int
    name: str
    block: nn.Module
    inputs: list[Float[Tensor, "_ token hidden"]]
    _calls: Mapping[int, Call]
    _outputs: list[Tensor] | None = field(default=None)

    def run(self, batch: int) -> Float[Tensor, "batch token hidden"]:
        """The block's output for one batch of its inputs, with the block as it is now."""
        return self.run_on(self.inputs[batch])

    def run_on(self, states: Float[Tensor, "batch token hidden"]) -> Float[Tensor, "batch token hidden"]:
        """The block's output for hidden states of a batch size that occurs among the inputs."""
        args, kwargs = self._calls[states.shape[0]]
        output = self.block(states, *args, **kwargs)
        first: Tensor = output[0] if isinstance(output, tuple) else output
        return first

    def observe(self, readers: Mapping[nn.Module, Reader]) -> list[Float[Tensor, "_ token hidden"]]:
        """Runs the block, as it is now, over all its inputs, and shows readers what their modules read.

        Args:
            readers: for modules of the block, who is given their inputs, each token a row, batch by batch.

        Returns:
            The block's outputs.
        """
        with ExitStack() as hooks:
            for module, reader in readers.items():
                hooks.callback(module.register_forward_pre_hook(_shown(reader)).remove)
            return [self.run(batch) for batch in range(len(self.inputs))]

    def hand_on(self, outputs: list[Float[Tensor, "_ token hidden"]] | None = None) -> None:
        """Says what the next block reads; unless it is called, that is the output of the block as the method leaves it.

        Args:
            outputs: by default those of the block as it is now, before the method changes it.
        """
        self._outputs = outputs or [self.run(batch) for batch in range(len(self.inputs))]


def walk(model: Any, calibration: Calibration) -> Iterator[Stage]:
    """Stands at every block in turn, with what it reads of the calibration; one block's inputs are held at a time.

    When the method asks for the next block, this one's outputs are taken as it left the block (see `Stage.hand_on`).
    What it left is kept where the calibration keeps unfinished work, and a block that is kept already is not shown
    again. The next block reads the same bits either way: see `settle`.

    Raises:
        ModelError: the blocks cannot be found, or read more than hidden states and what is the same for every text.
    """
    from pith.weights.state import load_state, state  # a block's state may hold stand-ins, which know methods

    inputs, calls = _first_inputs(model, calibration)
    count = len(blocks(model))
    for index in range(count):
        calibration.told(index, count)
        name = block_name(model, index)
        stage = Stage(index, name, model.get_submodule(name), inputs, calls[index])
        before = tensors_of(stage.block)
        kept = calibration.recall(f"block-{index}")
        if kept is not None:
            handed = kept.pop("handed_on", None)
            if handed is not None:
                stage._outputs = list(torch.split(handed.to(model.device), [len(states) for states in inputs]))
            load_state(model, name, kept)
        else:
            yield stage
            left = state(model, name)
            if stage._outputs is not None and calibration.folder is not None:
                left["handed_on"] = torch.cat(stage._outputs)
            calibration.remember(f"block-{index}", left)
        stage.block = model.get_submodule(name)
        settle(stage.block, before)
        if index + 1 < count:
            outputs = stage._outputs or [stage.run(batch) for batch in range(len(inputs))]
            inputs = [aligned(states) for states in outputs]
    calibration.told(count, count)


class _Stopped(Exception):  # noqa: N818  (it is no error)
    """The last block that was asked for was reached."""


def _first_inputs(model: Any, calibration: Calibration) -> tuple[list[Tensor], list[dict[int, Call]]]:
    """What the first block reads of every batch, and what each block is given besides, by the batch's size."""
    batches = calibration.batches
    if not calibration.tokens.numel():
        raise InputError("reading texts block by block needs a calibration, such as pith.calibration(tokenizer)")
    calls: list[dict[int, Call]] = [{} for _ in blocks(model)]
    for batch in {len(batch): batch for batch in batches}.values():
        own, other = (_calls(model, tokens)[1] for tokens in (batch, batch.flip(1)))
        for index, (one, another) in enumerate(zip(own, other, strict=True)):
            if not _same(one, another):
                raise ModelError(
                    f"block {index} of {type(model).__name__} is given more of a text than hidden states, so that "
                    "blocks cannot be read one after another"
                )
            calls[index][len(batch)] = one
    return [_calls(model, batch, until=0)[0] for batch in batches], calls


def _calls(model: Any, tokens: Tensor, until: int | None = None) -> tuple[Tensor, list[Call]]:
    """Runs the model up to a block, by default the last: what the first block reads, and the calls of each block."""
    layers = list(blocks(model))[: None if until is None else until + 1]
    states: list[Tensor] = []
    calls: list[Call] = []
    handed: list[Tensor] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        read = args[0] if args else kwargs["hidden_states"]
        if module is not layers[len(calls)] or (handed and not torch.equal(read, handed.pop())):
            raise ModelError(
                f"block {len(calls)} of {type(model).__name__} does not read what the block before it gives, so that "
                "blocks cannot be read one after another"
            )
        if not states:
            states.append(read.detach())
        calls.append((args[1:], {key: value for key, value in kwargs.items() if key != "hidden_states"}))
        if len(calls) == len(layers):
            raise _Stopped

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        handed[:] = [output[0] if isinstance(output, tuple) else output]

    with ExitStack() as hooks, torch.no_grad():
        for layer in layers:
            hooks.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
            hooks.callback(layer.register_forward_hook(after).remove)
        hooks.enter_context(suppress(_Stopped))
        model(input_ids=tokens.to(model.device), use_cache=False)
    return states[0], calls


def _same(one: Any, other: Any) -> bool:
    """Whether all tensors in what a block is given are equal."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other)


def _shown(reader: Reader) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        reader(args[0].detach().flatten(0, -2))

    return hook
