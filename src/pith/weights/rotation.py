"""The residual stream of a model in another basis: the same model, its weights without outliers."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pith.core import ModelError
from pith.weights.anatomy import Parts, heads, parts
from pith.weights.blocks import blocks
from pith.weights.linears import is_linear, set_bias, set_weight, weight_of


@dataclass(frozen=True)
class Rotation:
    """An orthogonal matrix Q = D (R x H), applied without being written out.

    D flips signs; H is the Hadamard matrix of the largest power of two in the size, R a random orthogonal matrix of
    what is left of it; for a power of two Q is a randomised Hadamard matrix.

    Attributes:
        signs: the diagonal of D.
        rest: R.
    """

    signs: Float[Tensor, " size"]
    rest: Float[Tensor, "odd odd"]

    @classmethod
    def random(cls, size: int, generator: torch.Generator) -> Rotation:
        """A rotation of that size."""
        odd = size // (size & -size)
        signs = torch.randint(0, 2, (size,), generator=generator).double() * 2 - 1
        q, r = torch.linalg.qr(torch.randn(odd, odd, dtype=torch.float64, generator=generator))
        return cls(signs, q * r.diagonal().sign())

    def __call__(self, x: Float[Tensor, "... size"]) -> Float[Tensor, "... size"]:
        """The rows of x times Q, in float64."""
        x = x.double() * self.signs.to(x.device)
        x = torch.einsum("...oh,op->...ph", torch.unflatten(x, -1, (len(self.rest), -1)), self.rest.to(x.device))
        width, step = x.shape[-1], 1
        while step < width:  # the transform of Walsh and Hadamard: pairs at a distance become sum and difference
            first, second = torch.unflatten(x, -1, (-1, 2, step)).unbind(-2)
            x = torch.stack([first + second, first - second], dim=-2).flatten(-3)
            step *= 2
        turned: Tensor = (x * width**-0.5).flatten(-2)
        return turned

    def of_inputs(self, linear: nn.Module, size: int | None = None) -> None:
        """W <- W Q, for a layer that reads what was rotated; for every `size` inputs where that is given."""
        weight = weight_of(linear)
        split = torch.unflatten(weight, 1, (-1, size or weight.shape[1]))
        set_weight(linear, self(split).flatten(1))

    def of_outputs(self, linear: nn.Module, size: int | None = None) -> None:
        """W <- Q^T W and b <- Q^T b, for a layer whose outputs are to be rotated; for every `size` of them."""
        weight, bias = weight_of(linear), getattr(linear, "bias", None)
        size = size or weight.shape[0]
        set_weight(linear, self(torch.unflatten(weight.T, 1, (-1, size))).flatten(1).T)
        if bias is not None:
            set_bias(linear, self(torch.unflatten(bias.detach(), 0, (-1, size))).flatten())


def rotate(model: Any, seed: int = 0) -> None:
    """Rotates what blocks hand to one another, and within each block what heads hand from values to outputs.

        E <- E Q,    W_reads <- W_reads diag(g) Q,    W_writes <- Q^T W_writes,    b_writes <- Q^T b_writes
        W_v <- per head P^T W_v,    W_o <- per head W_o P

    with g the gain of the norm before a layer, which becomes ones. The model gives the same and stays a plain one, but
    for tied embeddings: the gain of the last norm goes into the output layer only, which gets a matrix of its own.

    Args:
        model: a causal language model of one's own.
        seed: of signs, and of the random matrix where sizes are no powers of two.

    Raises:
        ModelError: blocks are not of the Llama kind, norms are not root mean squares with a gain, or the model does not
            give the same afterwards.
    """
    generator = torch.Generator().manual_seed(seed)
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    within = [_rotatable(block) for block in blocks(model)]
    if type(output) is not nn.Linear:
        raise ModelError(
            f"the output layer of {type(model).__name__} is a {type(output).__name__}; allowed is a Linear"
        )
    probe = torch.arange(16, device=model.device)[None] % embedding.num_embeddings
    before = model(input_ids=probe, use_cache=False).logits.double()
    stream = Rotation.random(embedding.embedding_dim, generator)
    per_head = Rotation.random(heads(model)[2], generator)
    _untie(model)
    _fold(_last_norm(model), [output])
    stream.of_inputs(output)
    old = embedding.weight
    embedding.weight = nn.Parameter(stream(old.detach()).to(old.dtype), requires_grad=old.requires_grad)
    for one in within:
        _rotate_block(one, stream, per_head, heads(model)[2])
    after = model(input_ids=probe, use_cache=False).logits.double()
    allowed = 1e-3 if model.dtype == torch.float32 else 0.2
    if not (after - before).norm() <= allowed * before.norm():
        raise ModelError(f"{type(model).__name__} gives something else after a rotation; it cannot be rotated")


def _rotatable(block: nn.Module) -> Parts:
    one = parts(block)
    if one.output_norms:
        raise ModelError(
            f"a {type(block).__name__} has norms after its parts, whose gains cannot be folded into a layer; it cannot "
            "be rotated"
        )
    for norm in (one.attention_norm, one.mlp_norm):
        _gain(norm)
    return one


def _rotate_block(one: Parts, stream: Rotation, per_head: Rotation, head_dim: int) -> None:
    mlp_readers = [layer for layer in (one.gate, one.up) if layer is not None]
    for norm, readers in ((one.attention_norm, [one.q, one.k, one.v]), (one.mlp_norm, mlp_readers)):
        _fold(norm, readers)
        for reader in readers:
            stream.of_inputs(reader)
    for writer in (one.o, one.down):
        stream.of_outputs(writer)
    per_head.of_outputs(one.v, head_dim)
    per_head.of_inputs(one.o, head_dim)


def _fold(norm: nn.Module, readers: Iterable[nn.Module]) -> None:
    """Moves the gain of a norm into the layers that read what it gives."""
    gain = _gain(norm)
    for reader in readers:
        set_weight(reader, weight_of(reader).double() * gain.double())
    old: Tensor = norm.weight  # type: ignore[assignment]
    neutral = torch.ones_like(old) if _is_gain(norm, old.detach()) else torch.zeros_like(old)
    norm.weight = nn.Parameter(neutral, requires_grad=old.requires_grad)


def _gain(norm: nn.Module) -> Float[Tensor, " hidden"]:
    """What a norm multiplies its inputs with, once they have a root mean square of 1: its weight, or 1 + its weight.

    Raises:
        ModelError: it does something else.
    """
    weight = getattr(norm, "weight", None)
    if isinstance(weight, Tensor) and getattr(norm, "bias", None) is None:
        for gain in (weight.detach(), 1 + weight.detach()):
            if _is_gain(norm, gain):
                return gain
    raise ModelError(
        f"a {type(norm).__name__} cannot be folded into the layers that read it; allowed are norms that divide by the "
        "root mean square and multiply with a gain"
    )


def _is_gain(norm: nn.Module, gain: Float[Tensor, " hidden"]) -> bool:
    """Whether the norm is x / rms(x) * gain, tried on numbers so large that what it adds to the mean is nothing."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(4, len(gain), generator=generator) * 100 + 100).to(gain.device)
    exact = copy.deepcopy(norm).float()
    expected = x * x.square().mean(-1, keepdim=True).rsqrt() * gain.float()
    given = exact(x)
    return given.shape == x.shape and torch.allclose(given, expected, rtol=1e-3, atol=1e-3)


def _last_norm(model: Any) -> nn.Module:
    """The norm between the last block and the output layer."""
    decoder = model.get_decoder()
    norms: list[nn.Module] = [
        child for child in decoder.children() if hasattr(child, "weight") and _reads_stream(child)
    ]
    if len(norms) != 1:
        raise ModelError(f"{type(model).__name__} has {len(norms)} norms after its blocks; one is needed to rotate it")
    return norms[0]


def _reads_stream(module: nn.Module) -> bool:
    return not is_linear(module) and not isinstance(module, nn.Embedding)


def _untie(model: Any) -> None:
    """Gives the output layer a matrix of its own; it is filled when the last gain is folded in."""
    for config in {id(one): one for one in (model.config, model.config.get_text_config(decoder=True))}.values():
        config.tie_word_embeddings = False
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=False)
