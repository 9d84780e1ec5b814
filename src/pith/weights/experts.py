"""Mixtures of experts as plain linear layers: Transformers holds all experts of a block in one tensor a matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pith.core import ModelError, fits
from pith.weights.standin import StandIn


class SplitExperts(StandIn):
    """The experts of one block, each with linear layers of its own, where methods find and replace them.

        y[token] = sum over the token's experts e of weight[token, e] * down_e(gate(up_e(x[token])))

    `up_e` is named as the fused tensor is: `gate_up_proj`, with gate and up in one layer as in Phi-3, or `up_proj`.
    Of every forward only the experts that tokens were sent to are run.

    Attributes:
        plain: the plain module without its tensors, which knows how gate and up become one.
    """

    kind: ClassVar[str] = "experts"

    def __init__(self, plain: Any, linears: list[dict[str, nn.Linear]]) -> None:
        super().__init__()
        self.plain = plain
        self.first, self.last = names_of(plain)
        for index, pair in enumerate(linears):
            self.add_module(str(index), nn.ModuleDict(pair))
        self.count = len(linears)

    def forward(
        self,
        states: Float[Tensor, "token hidden"],
        experts: Int[Tensor, "token choice"],
        weights: Float[Tensor, "token choice"],
    ) -> Float[Tensor, "token hidden"]:
        """Every token through its experts, in the dtype of the states; an index past the last expert is none."""
        result = torch.zeros_like(states)
        chosen, weights = experts.flatten(), weights.flatten()
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=self.count)[: self.count].tolist()
        begin = 0
        for index, count in enumerate(counts):
            if count:
                pairs = order[begin : begin + count]
                tokens = pairs // experts.shape[1]
                mixed = self._expert(index, states[tokens]) * weights[pairs, None]
                result.index_add_(0, tokens, mixed.to(result.dtype))
            begin += count
        return result

    def _expert(self, index: int, states: Float[Tensor, "token hidden"]) -> Float[Tensor, "token hidden"]:
        layers: Any = self.get_submodule(str(index))
        plain = self.plain
        inner = layers[self.first](states)
        states = layers[self.last](plain._apply_gate(inner) if plain.has_gate else plain.act_fn(inner))
        return plain.post_expert_norm(states) if getattr(plain, "has_post_expert_norm", False) else states

    def layers(self) -> list[dict[str, nn.Module]]:
        """The layers of every expert, by their names in it."""
        return [dict(self.get_submodule(str(index)).named_children()) for index in range(self.count)]

    def plan(self) -> dict[str, Any]:
        """See `StandIn`."""
        first: Any = self.get_submodule("0")[self.first]  # type: ignore[index]
        last: Any = self.get_submodule("0")[self.last]  # type: ignore[index]
        return {
            "experts": self.count, "hidden": first.in_features, "first_out": first.out_features,
            "last_in": last.in_features, "bias": first.bias is not None,
        }  # fmt: skip

    @classmethod
    def build(cls, plan: Mapping[str, Any], replaced: nn.Module, dtype: torch.dtype) -> SplitExperts:
        """See `StandIn`."""
        plain = replaced.plain if isinstance(replaced, SplitExperts) else _emptied(replaced)
        shapes = (plan["first_out"], plan["hidden"]), (plan["hidden"], plan["last_in"])

        def empty(shape: tuple[int, int]) -> nn.Linear:
            bias = torch.empty(shape[0], dtype=dtype) if plan["bias"] else None
            return _linear(torch.empty(shape, dtype=dtype), bias, True)

        names = names_of(plain)
        return cls(plain, [dict(zip(names, map(empty, shapes), strict=True)) for _ in range(plan["experts"])])


def split_experts(model: Any, skip: str | tuple[str, ...] = ()) -> None:
    """Gives every fused expert of the model linear layers of its own, over the same tensors.

    Experts of which a pattern of `skip` fits every layer stay fused; a model without experts stays as it is.

    Raises:
        ModelError: experts are stored in a way that is not known.
    """
    patterns = (skip,) if isinstance(skip, str) else skip
    for name, experts in list(_fused(model)):
        layers = [f"{name}.0.{layer}" for layer in names_of(experts)]
        if not all(any(fits(layer, pattern) for pattern in patterns if pattern) for layer in layers):
            model.set_submodule(name, _split(experts))


def fuse_experts(model: Any) -> None:
    """Takes back `split_experts` where the layers of all experts of a block are plain linear ones of equal shapes.

    So that a method that changes weights and packs none leaves a model that plain Transformers can hold.
    """
    for name, split in [(n, m) for n, m in model.named_modules() if isinstance(m, SplitExperts)]:
        layers = split.layers()
        if all(type(layer) is nn.Linear for pair in layers for layer in pair.values()):
            model.set_submodule(name, _fuse(split.plain, layers))


def names_of(experts: Any) -> tuple[str, str]:
    """The names of the first and the last matrix of an expert."""
    return ("gate_up_proj" if experts.has_gate else "up_proj"), "down_proj"


def _fused(model: Any) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        fused = [own for own, tensor in module._parameters.items() if tensor is not None and tensor.ndim == 3]
        if not fused or "expert" not in type(module).__name__.lower():
            continue
        known = hasattr(module, "is_transposed") and hasattr(module, "_apply_gate")
        if not known or sorted(fused) != sorted(names_of(module)):
            raise ModelError(
                f"{name} is a {type(module).__name__} with {', '.join(fused)} in one tensor for all experts, in an "
                "order that is not known; allowed are experts that Transformers dispatches itself"
            )
        yield name, module


def _split(experts: Any) -> SplitExperts:
    names = names_of(experts)
    pairs: list[dict[str, nn.Linear]] = []
    for index in range(len(experts.down_proj)):
        pair = {}
        for name in names:
            weight, bias = getattr(experts, name), getattr(experts, f"{name}_bias", None)
            own = weight.detach()[index]
            pair[name] = _linear(
                own.T if experts.is_transposed else own,
                None if bias is None else bias.detach()[index],
                weight.requires_grad,
            )
        pairs.append(pair)
    return SplitExperts(_emptied(experts), pairs)


def _fuse(plain: Any, layers: list[dict[str, nn.Module]]) -> nn.Module:
    for name in names_of(plain):
        own: list[Any] = [pair[name] for pair in layers]
        weights = [layer.weight.detach() for layer in own]
        stacked = torch.stack([weight.T if plain.is_transposed else weight for weight in weights])
        learns = own[0].weight.requires_grad
        plain._parameters[name] = nn.Parameter(stacked, requires_grad=learns)
        if own[0].bias is not None:
            bias = torch.stack([layer.bias.detach() for layer in own])
            plain._parameters[f"{name}_bias"] = nn.Parameter(bias, requires_grad=learns)
    return plain  # type: ignore[no-any-return]


def _emptied(experts: Any) -> Any:
    """The module without the tensors that its experts' layers hold now."""
    for name in names_of(experts):
        for own in (name, f"{name}_bias"):
            if own in experts._parameters:
                experts._parameters[own] = None
    return experts


def _linear(weight: Float[Tensor, "out in"], bias: Float[Tensor, out] | None, learns: bool) -> nn.Linear:
    """A linear layer over tensors that are there."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=learns)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=learns)
    return layer
