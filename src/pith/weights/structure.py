"""Fewer blocks, parts, heads and channels, in place: new modules and parameters, and a configuration that fits them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.cache_utils import CacheLayerMixin, DynamicCache

from pith.core import ModelError
from pith.weights.anatomy import NORMS_BEFORE, attention_linears, heads, mlp_linears
from pith.weights.blocks import block_name, blocks
from pith.weights.dropped import Dropped, NoAttention, NoMLP, NoNorm, number_layers
from pith.weights.linears import set_bias, set_weight, weight_of
from pith.weights.narrow import Narrow, narrow, widen
from pith.weights.plain import difference

Part = Literal["attention", "mlp"]

_INDEX_LISTS = ("mlp_only_layers", "moe_layers", "cross_attention_layers")
"""Lists in configurations that hold numbers of layers; other lists have one entry for every layer."""

_NOT_OF_LAYERS = ("architectures", "pith_recipe", "keys_to_ignore_at_inference")

_BIASES = ("attention_bias", "mlp_bias")

_NAMES = {"attention": "self_attn", "mlp": "mlp"}


def keep_blocks(model: Any, kept: Sequence[int]) -> None:
    """Keeps these blocks, in their order, and removes all others; the configuration says so.

    What is left is a plain Transformers model wherever the model was one.

    Args:
        model: the method's own.
        kept: indices of blocks.

    Raises:
        ModelError: there are no such blocks, or the configuration cannot say that these are left.
    """
    layers = blocks(model)
    count, chosen = len(layers), sorted(set(kept))
    if not chosen or chosen[0] < 0 or chosen[-1] >= count:
        raise ModelError(f"blocks {list(kept)} of {count} cannot be kept; allowed are some of 0 to {count - 1}")
    path = block_name(model, 0).rpartition(".")[0]
    config = model.config.get_text_config(decoder=True)
    attended = _attends(config)
    model.set_submodule(path, nn.ModuleList(layers[index] for index in chosen))
    lists = _of_layers(config, count)
    config.num_hidden_layers = len(chosen)
    for name, values in lists.items():
        setattr(config, name, values[:0] + [values[index] for index in chosen])
    for name in _INDEX_LISTS:
        if (named := getattr(config, name, None)) is not None:
            setattr(config, name, [new for new, old in enumerate(chosen) if old in named])
    if attended and not _attends(config):
        raise ModelError(f"blocks {chosen} of {type(model).__name__} have no attention, by which tokens are counted")
    number_layers(model)
    if len(chosen) < count and (found := difference(model, widths=False)):
        raise ModelError(f"{type(model).__name__} without blocks {_others(chosen, count)} is no plain model: {found}")


def drop_part(model: Any, index: int, part: Part) -> None:
    """Drops the attention or the MLP of a block, with its norms: the hidden states pass by.

    Raises:
        ModelError: the block has no such part with a norm of its own before it.
    """
    block = blocks(model)[index]
    _, *norms = part_names(model, index, part)
    if is_dropped(block, part):
        raise ModelError(f"the {part} of block {index} of {type(model).__name__} was dropped already")
    _put_dropped(block, part, block.get_parameter(f"{norms[0]}.weight"), None)
    for norm in norms:
        setattr(block, norm, NoNorm())
    number_layers(model)


def is_dropped(block: nn.Module, part: str) -> bool:
    """Whether that part of a block is gone; a whole block never is."""
    return part in _NAMES and isinstance(getattr(block, _NAMES[part], None), Dropped)


def part_names(model: Any, index: int, part: Part) -> list[str]:
    """The names in a block of a part, of the norm that it reads through, and of the one behind it, if there is one.

    What comes into the norm before it is also what the part's output is added to.

    Raises:
        ModelError: the block has no such part with a norm of its own before it.
    """
    block = blocks(model)[index]
    norms = [name for name in NORMS_BEFORE[part] if isinstance(getattr(block, name, None), nn.Module)]
    if not norms or not isinstance(getattr(block, _NAMES[part], None), nn.Module):
        raise ModelError(
            f"block {index} of {type(model).__name__} has no {_NAMES[part]} behind a norm of its own; allowed are "
            "blocks of the Llama kind"
        )
    names = [_NAMES[part], norms[0]]
    if hasattr(block, "post_feedforward_layernorm"):  # then what a part gives is normalised too
        names.append("post_attention_layernorm" if part == "attention" else "post_feedforward_layernorm")
    return names


def keep_channels(block: nn.Module, kept: Int[Tensor, " kept"]) -> None:
    """Keeps these channels of a block's MLP: rows of gate and up, columns of down.

    Args:
        block: with an MLP of the Llama kind.
        kept: indices of channels, in the order in which they will lie; none leaves what down's bias adds.

    Raises:
        ModelError: it has no MLP of the Llama kind.
    """
    gate, up, down = mlp_linears(block)
    mlp = block.get_submodule("mlp")
    if not len(kept):
        _put_dropped(block, "mlp", weight_of(down)[:, 0], getattr(down, "bias", None))
        return
    for linear in (gate, up):
        if linear is not None:
            _keep_rows(linear, kept)
    set_weight(down, weight_of(down)[:, kept])
    if isinstance(getattr(mlp, "intermediate_size", None), int):
        mlp.intermediate_size = len(kept)  # type: ignore[assignment]
    narrow(mlp)


def keep_heads(model: Any, index: int, kept: Int[Tensor, " kept"]) -> None:
    """Keeps these key-value heads of a block, each with the query heads that read it.

    Without any, all that is left of the attention is the bias of its output, if it has one.

    Args:
        model: the method's own.
        index: of the block.
        kept: indices of key-value heads among those that the block has now, in the order in which they will lie.

    Raises:
        ModelError: it has no attention of the Llama kind, or something in it belongs to heads in a way that is
            not known.
    """
    block = blocks(model)[index]
    q, k, v, o = attention_linears(block)
    attention = block.get_submodule("self_attn")
    query, key, head_dim = heads(model)
    group = query // key
    now = _rows(k) // head_dim
    _require_known(attention, head_dim, now * group, index)
    if not len(kept):
        _put_dropped(block, "attention", weight_of(o)[:, 0], getattr(o, "bias", None))
        number_layers(model)
        return
    queries = _wide(kept, group)
    for linear, which, of in ((q, queries, now * group), (k, kept, now), (v, kept, now)):
        _keep_rows(linear, _wide(which, _rows(linear) // of))
    columns = _wide(queries, weight_of(o).shape[1] // (now * group))
    set_weight(o, weight_of(o)[:, columns])
    for name, parameter in list(attention.named_parameters(recurse=False)):
        setattr(attention, name, nn.Parameter(parameter.detach()[queries], parameter.requires_grad))
    sizes = {"num_heads": queries, "num_attention_heads": queries, "num_key_value_heads": kept}
    for name, which in sizes.items():
        if isinstance(getattr(attention, name, None), int):
            setattr(attention, name, len(which))
    narrow(attention)


def settle(model: Any) -> None:
    """Writes the widths into the configuration where all blocks have the same, so that the model is a plain one.

    Where they differ, or where the configuration cannot say them, the model is one that only Pith loads. Biases that
    only some layers of a part have are added to the others as zeros, if the configuration knows them.
    """
    found = [module for module in model.modules() if isinstance(module, Narrow)]
    if not found:
        return
    config = model.config.get_text_config(decoder=True)
    if any(isinstance(module, Dropped) for module in blocks(model).modules()):
        return
    query, key, head_dim = heads(model)
    sizes = {(_rows(attention_linears(block)[1]) // head_dim, _rows(mlp_linears(block)[1])) for block in blocks(model)}
    if len(sizes) != 1:
        return
    kv_heads, channels = sizes.pop()
    wanted = {
        "head_dim": head_dim, "num_attention_heads": kv_heads * (query // key), "num_key_value_heads": kv_heads,
        "intermediate_size": channels, **{name: True for name in _BIASES if _partly_biased(model, name)},
    }  # fmt: skip
    before = {name: getattr(config, name) for name in wanted if hasattr(config, name)}
    filled = [one for name in _BIASES if name in wanted for one in _biased(model, name) if one.bias is None]
    for linear in filled:
        set_bias(linear, weight_of(linear).new_zeros(_rows(linear)))
    for name, value in wanted.items():
        setattr(config, name, value)
    if difference(model) is None:
        for module in found:
            widen(module)
        return
    for linear in filled:
        set_bias(linear, None)
    for name in wanted:
        setattr(config, name, before[name]) if name in before else delattr(config, name)


def _biased(model: Any, flag: str) -> list[Any]:
    """The layers that have biases where the configuration says so under this name."""
    of = attention_linears if flag == "attention_bias" else mlp_linears
    return [linear for block in blocks(model) for linear in of(block) if linear is not None]


def _partly_biased(model: Any, flag: str) -> bool:
    config = model.config.get_text_config(decoder=True)
    return getattr(config, flag, None) is False and any(one.bias is not None for one in _biased(model, flag))


def _attends(config: Any) -> bool:
    """Whether any layer keeps keys and values."""
    return any(isinstance(layer, CacheLayerMixin) for layer in DynamicCache(config=config).layers)


def _of_layers(config: Any, count: int) -> dict[str, list[Any]]:
    """The lists of a configuration that have one entry for every layer."""
    said = {**vars(config), **{name: getattr(config, name, None) for name in ("layer_types",)}}
    return {
        name: list(values)
        for name, values in said.items()
        if isinstance(values, list | tuple)
        and len(values) == count
        and not name.startswith(("_", "mtp_"))
        and not name.endswith("token_id")
        and name not in (*_INDEX_LISTS, *_NOT_OF_LAYERS)
    }


def _others(chosen: list[int], count: int) -> list[int]:
    return [index for index in range(count) if index not in chosen]


def _put_dropped(block: nn.Module, part: Part, like: Float[Tensor, " hidden"], bias: Tensor | None) -> None:
    """Puts a stand-in for a part; `like` is any tensor with a number for each of the hidden states."""
    old = getattr(block, _NAMES[part])
    new: Dropped
    if part == "attention":
        new = NoAttention(len(like), bias is not None, like.dtype)
    else:
        with torch.no_grad():  # the only way to learn whether the model's MLPs say how they routed
            routed = isinstance(old(like.new_zeros(1, 1, len(like))), tuple)
        new = NoMLP(len(like), bias is not None, like.dtype, routed=routed)
    if bias is not None:
        new.bias = nn.Parameter(bias.detach(), requires_grad=False)
    setattr(block, _NAMES[part], new.to(like.device))


def _keep_rows(linear: nn.Module, kept: Int[Tensor, " kept"]) -> None:
    bias = getattr(linear, "bias", None)
    set_weight(linear, weight_of(linear)[kept])
    if bias is not None:
        set_bias(linear, bias[kept])


def _rows(linear: nn.Module) -> int:
    return weight_of(linear).shape[0]


def _wide(heads: Int[Tensor, " head"], size: int) -> Int[Tensor, " row"]:
    """The rows of heads, of which each has so many."""
    return (heads[:, None] * size + torch.arange(size, device=heads.device)).flatten()


def _require_known(attention: nn.Module, head_dim: int, queries: int, index: int) -> None:
    """Refuses attention that holds anything beside its linear layers that is wider than one head."""
    for name, parameter in attention.named_parameters():
        owner = name.rpartition(".")[0]
        known = owner in ("q_proj", "k_proj", "v_proj", "o_proj")
        known = known or (parameter.shape == (head_dim,) if owner else parameter.shape == (queries,))
        if not known:
            raise ModelError(
                f"block {index}: self_attn.{name} of shape {list(parameter.shape)} belongs to no single head of "
                f"{head_dim}; heads can be removed only where norms are over one head"
            )
