"""One attention layer that is fed queries, keys and values as a test wants them, un-rotated."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pith.attention import LayerCache
from pith.attention.call import Call
from pith.core import Method, Recipe


class OneLayer:
    """A method in one layer, in a model that rotates halves with a given base.

    Args:
        method: the method.
        query_heads, kv_heads, head_dim: the layer's shape.
        base: of the rotation.
    """

    def __init__(
        self, method: Method, query_heads: int, kv_heads: int, head_dim: int = 8, base: float = 10000.0
    ) -> None:
        config = LlamaConfig(
            hidden_size=head_dim * query_heads,
            num_attention_heads=query_heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            num_hidden_layers=1,
            vocab_size=4,
            intermediate_size=4,
            rope_parameters={"rope_type": "default", "rope_theta": base},
        )
        model = LlamaForCausalLM(config)
        self.module = model.model.layers[0].self_attn
        self.cache = Recipe([method]).cache(model)
        self.layer: LayerCache = self.cache.layers[0]

    @torch.no_grad()
    def read(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        lengths: list[int],
        padding: list[int] | None = None,
    ) -> torch.Tensor:
        """The outputs [batch, query_head, token, value_dim] of tokens that come in parts of these lengths.

        Args:
            query, keys, values: [batch, head, token, dim], all that is read; the first two are rotated here.
            lengths: of the parts; 1 is a decoded token.
            padding: tokens at the beginning of each row that are none.
        """
        batch, _, total, _ = query.shape
        first = torch.tensor(padding or [0] * batch)[:, None]
        mask = (torch.arange(total) >= first).long()
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        rotary = self.layer.answers.rotary
        assert rotary is not None
        tables = rotary.tables(positions, query)
        query, keys = rotary.rotate(query, tables), rotary.rotate(keys, tables)
        outs, start = [], self.layer.seen
        for length in lengths:
            own, start = slice(start, start + length), start + length
            seen = mask[:, :start] if padding else None
            call = Call(self.module, seen, positions[:, own], None, None, None, 0.0)
            outs.append(self.layer.attend(call, query[:, :, own], keys[:, :, own], values[:, :, own]))
        return torch.cat(outs, dim=2)


def rotated(x: torch.Tensor, at: int, base: float = 10000.0) -> torch.Tensor:
    """A vector as it is at a position, by the formula: the halves are the two sides of the angles."""
    half = x.shape[-1] // 2
    angle = at * base ** (-torch.arange(half, dtype=torch.float64) * 2 / x.shape[-1])
    low, high = x[..., :half].double(), x[..., half:].double()
    turned = torch.cat([low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin()], dim=-1)
    return turned.to(x.dtype)
