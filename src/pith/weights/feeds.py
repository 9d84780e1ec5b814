"""Which linear layers of a block read the same, and factors that move from what they read into them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pith.weights.blocks import Stage
from pith.weights.experts import SplitExperts
from pith.weights.linears import is_linear, linears, set_bias, set_weight, weight_of

_PAIRS = (
    ("v_proj", "o_proj"), ("v_proj", "out_proj"), ("up_proj", "down_proj"), ("gate_up_proj", "down_proj"),
    ("fc1", "fc2"), ("w3", "w2"),
)  # fmt: skip
"""Layers of one part that may follow each other with nothing between them but what keeps a factor of a channel."""

Source = nn.Module
"""A norm, or a linear layer whose last outputs are meant."""


@dataclass(frozen=True, eq=False)
class Feed:
    """Linear layers of a block that read the same.

    Attributes:
        readers: the layers by name in the model.
        source: what can take a factor of every channel that they read, so that the block gives the same:
            source / s, readers diag(s); None where nothing can.
        inspected: the smallest part of the block that the layers' errors pass through together: a child of the block,
            the block itself, or the layer itself where its source is a layer.
        seen: whether the first batch reached them; not so of some experts.
    """

    readers: Mapping[str, nn.Module]
    source: Source | None
    inspected: nn.Module
    seen: bool = True


def feeds(stage: Stage) -> tuple[list[Feed], list[str]]:
    """Every plain linear layer of a block in one feed, and the names of sources that cannot take factors.

    A source can if the block gives the same with powers of two moved: so norms that something else reads too, such as
    a router, are found out, and layers with something between them that does not keep a factor.
    """
    layers = dict(linears(stage.block))
    experts = {name: one for name, one in stage.block.named_modules() if isinstance(one, SplitExperts)}
    inputs, norms, before = _first_reads(stage, layers | experts)
    sets: list[list[str]] = []
    for name in layers:
        same = next((one for one in sets if _same(inputs.get(one[0]), inputs.get(name))), None)
        sets.append([name]) if same is None else same.append(name)
    sources: dict[int, Source] = {}
    routed = [inputs.get(name) for name in experts]
    refused = [f"{stage.name}.{norm}" for norm, _, given in norms if any(_same(given, one) for one in routed)]
    change = (before - stage.inputs[0]).norm()

    def keeps(pairs: Iterable[tuple[Source, list[nn.Module]]]) -> bool:
        pairs = list(pairs)
        with kept(module for source, readers in pairs for module in (source, *readers)):
            for source, readers in pairs:
                move(source, readers, _powers(weight_of(readers[0])))
            return bool((stage.run(0) - before).norm() <= 0.01 * change)

    for index, names in enumerate(sets):
        for norm, module, given in norms:
            path = f"{stage.name}.{norm}"
            if path not in refused and _same(given, inputs.get(names[0])):
                if keeps([(module, [layers[name] for name in names])]):
                    sources[index] = module
                else:
                    refused.append(path)
    alone = {names[0]: index for index, names in enumerate(sets) if len(names) == 1 and index not in sources}
    for candidates in _pairs(layers, [name for name in alone if name in inputs]):
        if keeps((layers[source], [layers[reader]]) for source, reader in candidates):
            sources.update({alone[reader]: layers[source] for source, reader in candidates})
    found = []
    for index, names in enumerate(sets):
        source = sources.get(index)
        inspected = layers[names[0]] if source is None or is_linear(source) else _around(stage.block, names)
        readers = {f"{stage.name}.{name}": layers[name] for name in names}
        found.append(Feed(readers, source, inspected, names[0] in inputs))
    return found, refused


def move(source: Source, readers: Iterable[nn.Module], scale: Float[Tensor, " channel"]) -> None:
    """Divides every channel that a source gives by a factor, and multiplies what reads it: all as new parameters."""
    weight, bias = source.weight, source.bias if hasattr(source, "bias") else None
    if is_linear(source):
        rows, count = weight_of(source), len(scale)
        factors = torch.cat([torch.ones(len(rows) - count, device=scale.device), scale])
        set_weight(source, rows.float() / factors[:, None])
        if isinstance(bias, Tensor):
            set_bias(source, bias.detach().float() / factors)
    elif isinstance(weight, Tensor):
        added = _added(source)
        moved = (weight.detach().float() + added) / scale - added
        source.weight = nn.Parameter(moved.to(weight.dtype), requires_grad=weight.requires_grad)
        if isinstance(bias, Tensor):
            source.bias = nn.Parameter((bias.detach().float() / scale).to(bias.dtype), requires_grad=bias.requires_grad)
    for reader in readers:
        set_weight(reader, weight_of(reader).float() * scale)


@contextmanager
def kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Gives modules their parameters back at the end, whichever were put in their places."""
    before = {module: dict(module._parameters) for module in modules}
    try:
        yield
    finally:
        for module, parameters in before.items():
            module._parameters.update(parameters)


def _first_reads(
    stage: Stage, layers: Mapping[str, nn.Module]
) -> tuple[dict[str, Tensor], list[tuple[str, nn.Module, Tensor]], Tensor]:
    """What each layer and what each norm reads and gives of the first batch; and what the block gives."""
    inputs: dict[str, Tensor] = {}
    given: list[tuple[str, nn.Module, Tensor]] = []

    def reads(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            inputs.setdefault(name, args[0])

        return hook

    def gives(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and len(args) == 1:  # a gated norm reads two things
                given.append((name, module, output))

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_pre_hook(reads(name)).remove)
        for name, module in stage.block.named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, nn.Parameter) and weight.ndim == 1 and not list(module.children()):
                hooks.callback(module.register_forward_hook(gives(name)).remove)
        before = stage.run(0)
    return inputs, given, before


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors are the same memory; both are alive."""
    if one is None or other is None:
        return False
    return one.data_ptr() == other.data_ptr() and one.numel() == other.numel()


def _pairs(layers: Mapping[str, nn.Module], readers: list[str]) -> list[list[tuple[str, str]]]:
    """Layers whose names and widths fit, as (source, reader); those of all experts together."""
    found: dict[str, list[tuple[str, str]]] = {}
    for first, last in _PAIRS:
        for reader in readers:
            path, _, own = reader.rpartition(".")
            source = f"{path}.{first}" if path else first
            if own == last and source in layers:
                rows, columns = len(weight_of(layers[source])), weight_of(layers[reader]).shape[1]
                if rows == columns or (rows == 2 * columns and first.startswith("gate")):
                    found.setdefault(re.sub(r"\d+", "*", source), []).append((source, reader))
    return list(found.values())


def _around(block: nn.Module, names: list[str]) -> nn.Module:
    """The child of a block that holds all these layers, or the block."""
    children = {name.partition(".")[0] for name in names}
    return block.get_submodule(children.pop()) if len(children) == 1 else block


def _powers(weight: Float[Tensor, "out in"]) -> Float[Tensor, " in"]:
    """Factors of 2 and 1/2 in turn, by which numbers are divided without rounding."""
    return torch.exp2(torch.arange(weight.shape[1], device=weight.device) % 2 * 2.0 - 1)


def _added(norm: nn.Module) -> float:
    """What a norm adds to its weight before it multiplies with it: 1 in models of the Gemma kind, else 0."""
    weight: Any = norm.weight
    with kept([norm]):
        for name, parameter in list(norm.named_parameters(recurse=False)):
            norm.register_parameter(name, nn.Parameter(torch.zeros_like(parameter), requires_grad=False))
        probe = torch.arange(weight.numel(), device=weight.device, dtype=weight.dtype) - weight.numel() / 3
        return float(bool(norm(probe[None]).any()))
