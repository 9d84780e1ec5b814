"""The parts of a decoder block of the Llama kind: what methods that know what a matrix is for ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from pith.core import ModelError
from pith.weights.linears import is_linear

NORMS_BEFORE = {"attention": ("input_layernorm",), "mlp": ("pre_feedforward_layernorm", "post_attention_layernorm")}


@dataclass(frozen=True)
class Parts:
    """The parts of one block: x + attention(norm(x)), then x + mlp(norm(x)).

    Attributes:
        attention, mlp: the modules, under the names "self_attn" and "mlp" in the block.
        attention_norm, mlp_norm: the norms before them.
        q, k, v, o: the attention's linear layers.
        gate, up, down: the MLP's linear layers; `gate` is None where the MLP has no gate.
        output_norms: whether what attention and MLP give is normalised before it is added.
    """

    attention: nn.Module
    mlp: nn.Module
    attention_norm: nn.Module
    mlp_norm: nn.Module
    q: nn.Module
    k: nn.Module
    v: nn.Module
    o: nn.Module
    gate: nn.Module | None
    up: nn.Module
    down: nn.Module
    output_norms: bool


def parts(block: nn.Module) -> Parts:
    """The parts of a block.

    Raises:
        ModelError: the block is not of the Llama kind; the message names what it lacks.
    """
    attention, mlp = _part(block, "self_attn"), _part(block, "mlp")
    q, k, v, o = attention_linears(block)
    gate, up, down = mlp_linears(block)
    attention_norm, mlp_norm = (_first(block, names) for names in NORMS_BEFORE.values())
    output_norms = hasattr(block, "post_feedforward_layernorm")
    return Parts(attention, mlp, attention_norm, mlp_norm, q, k, v, o, gate, up, down, output_norms)


def attention_linears(block: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
    """q, k, v and o of a block, whatever else is in it.

    Raises:
        ModelError: it has no attention of the Llama kind.
    """
    q, k, v, o = (_linear(block, f"self_attn.{letter}_proj") for letter in "qkvo")
    return q, k, v, o


def mlp_linears(block: nn.Module) -> tuple[nn.Module | None, nn.Module, nn.Module]:
    """Gate, up and down of a block, whatever else is in it.

    Raises:
        ModelError: it has no MLP of the Llama kind.
    """
    gate = _linear(block, "mlp.gate_proj") if hasattr(_part(block, "mlp"), "gate_proj") else None
    return gate, _linear(block, "mlp.up_proj"), _linear(block, "mlp.down_proj")


def heads(model: Any) -> tuple[int, int, int]:
    """The query heads, key-value heads and head_dim of the model's attention."""
    config = model.config.get_text_config(decoder=True)
    query = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // query
    return query, getattr(config, "num_key_value_heads", None) or query, head_dim


def _part(block: nn.Module, name: str) -> nn.Module:
    try:
        return block.get_submodule(name)
    except AttributeError:
        raise ModelError(f"a {type(block).__name__} has no {name}; allowed are blocks of the Llama kind") from None


def _linear(block: nn.Module, name: str) -> nn.Module:
    found = _part(block, name)
    if not is_linear(found):
        raise ModelError(f"{name} of a {type(block).__name__} is a {type(found).__name__}; allowed is a linear layer")
    return found


def _first(block: nn.Module, names: tuple[str, ...]) -> nn.Module:
    for name in names:
        if isinstance(found := getattr(block, name, None), nn.Module):
            return found
    raise ModelError(f"a {type(block).__name__} has no {names[-1]}; allowed are blocks with a norm before each part")
