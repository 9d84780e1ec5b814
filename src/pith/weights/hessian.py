"""What linear layers read, as the second moments that layer-wise methods need."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pith.core import ModelError
from pith.weights.blocks import Reader, Stage
from pith.weights.linears import weight_of


class SecondMoments:
    """H = 2 / count * sum over tokens of r x x^T: the Hessian of the squared error of a layer's outputs.

    Attributes:
        matrix: the sum, not yet divided: [in, in].
        tokens: how many were read.
    """

    def __init__(self, inputs: int, device: torch.device | str = "cpu") -> None:
        self.matrix: Float[Tensor, "in in"] = torch.zeros(inputs, inputs, device=device)
        self.tokens = 0

    def add(self, rows: Float[Tensor, "token in"], importance: Float[Tensor, " token"] | None = None) -> None:
        """Counts tokens in, each with its importance, 1 by default."""
        rows = rows.float()
        left = rows if importance is None else rows * importance[:, None].to(rows)
        self.matrix.addmm_(left.T, rows)
        self.tokens += len(rows)

    def hessian(self, count: int) -> Float[Tensor, "in in"]:
        """The Hessian, where `count` is what the sum is divided by: sequences in the authors' code."""
        return self.matrix * (2 / count)


def moments(
    stage: Stage, layers: Mapping[str, nn.Module], importance: Float[Tensor, " token"] | None = None
) -> dict[str, SecondMoments]:
    """The second moments of what linear layers of a block read, with the block as it is now.

    Args:
        stage: the block with its inputs.
        layers: of the block, by name.
        importance: of every token, in the order of the inputs; for layers that read every token only.
    """
    found = {name: SecondMoments(weight_of(layer).shape[1], weight_of(layer).device) for name, layer in layers.items()}

    def reader(one: SecondMoments) -> Reader:
        def read(rows: Float[Tensor, "token in"]) -> None:
            own = None if importance is None else importance[one.tokens : one.tokens + len(rows)]
            one.add(rows, own)

        return read

    stage.observe({layer: reader(found[name]) for name, layer in layers.items()})
    return found


def in_turn(stage: Stage, layers: Mapping[str, nn.Module]) -> list[list[str]]:
    """Linear layers of a block in sets, in the order in which the block runs them.

    Layers that read the same are of one set, such as queries, keys and values; so are those of the same name in
    different experts.
    """
    turns: list[tuple[Tensor | None, list[str]]] = []  # what is read, and the names that read it, numbers left out

    def seen(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not any(name in names for _, names in turns):
                same = next((names for read, names in turns if read is args[0]), None)
                turns.append((args[0], [name])) if same is None else same.append(name)

        return hook

    plain = {name: re.sub(r"(?<=\.)\d+(?=\.)", "*", name.removeprefix(stage.name)) for name in layers}
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_pre_hook(seen(plain[name])).remove)
        stage.run(0)
    missed = [one for one in dict.fromkeys(plain.values()) if not any(one in names for _, names in turns)]
    turns += [(None, [one]) for one in missed]
    return [[name for name in layers if plain[name] in names] for _, names in turns]


def inverse_factor(hessian: Float[Tensor, "in in"], damping: float = 0.01, tries: int = 8) -> Float[Tensor, "in in"]:
    """The upper Cholesky factor U of the inverse, H^-1 = U^T U, with damping * mean(diag H) added to the diagonal.

    Of columns j.. the first row of the inverse of what is left of H is U[j, j:] U[j, j]. Where that is not enough to
    make the matrix positive, ten times the damping is added, so many times as `tries` allows.

    Raises:
        ModelError: it was not enough.
    """
    mean = hessian.diagonal().mean().clamp(min=torch.finfo(hessian.dtype).tiny)
    for attempt in range(tries):
        damped = hessian.clone()
        damped.diagonal().add_(damping * 10**attempt * mean)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper: Tensor
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(factor), upper=True)
            if not failed:
                return upper
    raise ModelError(
        f"what a layer of {len(hessian)} inputs reads gives no Hessian that can be inverted with damping={damping}; "
        "allowed are finite numbers, and more damping"
    )
