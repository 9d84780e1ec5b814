"""Turning keys back to before their rotation, and placing them at other positions, with the model's own functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pith.core import ModelError

Tables = tuple[Tensor, Tensor]
"""cos and sin, [batch, token, rotary_dim], as the model's own rotary embedding gives them."""


class Rotary:
    """The rotary embedding of one kind of layer of a model.

    A rotary embedding multiplies pairs of channels by [[cos, -sin], [sin, cos]] with angles position * frequency. The
    inverse is the same with -sin, divided by cos^2 + sin^2, which differs from 1 where a model scales its tables
    (YaRN) or rounds them (bfloat16).

    Args:
        model: a loaded Transformers model.
        layer_type: the layer's entry in `config.layer_types`, for models whose layers rotate differently.

    Raises:
        ModelError: the model has no rotary embedding, or one whose frequencies depend on the length of the text, so
            that a key rotated for one length cannot be placed at another.
    """

    def __init__(self, model: nn.Module, layer_type: str | None) -> None:
        name = type(model).__name__
        kinds_of_module = ((m, type(m).__name__) for m in model.modules())
        found = [m for m, kind in kinds_of_module if kind.endswith("RotaryEmbedding") and "Vision" not in kind]
        if not found:
            raise ModelError(f"{name} has no rotary embedding, so its keys cannot be placed at other positions")
        self._embedding = found[0]
        kinds = getattr(self._embedding, "rope_type", "default")
        kind = kinds.get(layer_type, "default") if isinstance(kinds, dict) else kinds
        if kind in ("dynamic", "longrope"):
            raise ModelError(
                f"{name} rotates with {kind!r} frequencies, which depend on the length of the text; keys can be placed "
                "at other positions only where they do not"
            )
        self._layer_type = layer_type if isinstance(kinds, dict) else None
        self._last: tuple[Tensor, int, int, Tables] | None = None

    def tables(self, positions: Int[Tensor, "batch token"], like: Tensor) -> Tables:
        """The model's cos and sin at text positions, in the dtype of `like`."""
        extra = () if self._layer_type is None else (self._layer_type,)
        cos, sin = self._embedding(like, positions, *extra)
        return cos, sin

    def tables_before(self, positions: Int[Tensor, "batch query"], stored: int, moved: int, like: Tensor) -> Tables:
        """The tables of the first `moved` of `stored` keys that stand without a gap and end with the newest token.

        The layers of one forward ask for the same, with the same `positions`, and share the answer.
        """
        if self._last is None or self._last[0] is not positions or self._last[1:3] != (stored, moved):
            behind = stored - 1 - torch.arange(moved, device=like.device)
            places = (positions[:, -1:] - behind).clamp(min=0)
            self._last = positions, stored, moved, self.tables(places, like)
        return self._last[3]

    def rotate(
        self, module: nn.Module, x: Float[Tensor, "batch head token dim"], tables: Tables
    ) -> Float[Tensor, "batch head token dim"]:
        """x rotated by the tables' angles."""
        rotated: Tensor = _apply(module)(x, x[:, :0], *tables)[0]
        return rotated

    def unrotate(
        self, module: nn.Module, x: Float[Tensor, "batch head token dim"], tables: Tables
    ) -> Float[Tensor, "batch head token dim"]:
        """The x that `rotate` turned into this one; computed in float32, returned in the dtype of `x`."""
        cos, sin = tables[0].float(), tables[1].float()
        size = cos.square() + sin.square()
        back: Tensor = _apply(module)(x.float(), x[:, :0].float(), cos / size, -sin / size)[0]
        return back.to(x.dtype)


def _apply(module: nn.Module) -> Callable[..., Any]:
    """The rotation of the file that the attention module comes from: halves or neighbours, whole heads or a part."""
    function = getattr(sys.modules[type(module).__module__], "apply_rotary_pos_emb", None)
    if function is None:
        raise ModelError(
            f"{type(module).__name__} has no apply_rotary_pos_emb beside it, so its keys cannot be placed at other "
            "positions"
        )
    return function  # type: ignore[no-any-return]


class Rotor:
    """The rotation of one layer's queries and keys in one forward.

    Args:
        rotary: of the layer's kind.
        module: the layer's attention module, whose file says how it rotates.
        offset: [batch, 1], the text position of a row's first real token, usually 0.
    """

    def __init__(self, rotary: Rotary, module: nn.Module, offset: Int[Tensor, "batch 1"]) -> None:
        self._rotary, self._module, self._offset = rotary, module, offset

    def text(self, positions: Int[Tensor, "batch heads token"]) -> Int[Tensor, "batch heads token"]:
        """The places in the text of tokens that have these indices among the real ones of their rows."""
        return (positions + self._offset.unsqueeze(1)).clamp(min=0).long()

    def rotate(
        self, x: Float[Tensor, "batch head token dim"], at: Int[Tensor, "#batch #head token"]
    ) -> Float[Tensor, "batch head token dim"]:
        """x, not rotated, as it is at these positions."""
        return self._turned(self._rotary.rotate, x, at)

    def unrotate(
        self, x: Float[Tensor, "batch head token dim"], at: Int[Tensor, "#batch #head token"]
    ) -> Float[Tensor, "batch head token dim"]:
        """x, rotated at these positions, as it was before."""
        return self._turned(self._rotary.unrotate, x, at)

    def average(
        self, x: Float[Tensor, "batch head token dim"], at: Int[Tensor, "batch place"]
    ) -> Float[Tensor, "batch head token dim"]:
        """x, not rotated, as it is on average over these places in the text; a rotation is linear in its tables."""
        cos, sin = self._rotary.tables(at, x)
        return self._rotary.rotate(self._module, x, (cos.mean(1, keepdim=True), sin.mean(1, keepdim=True)))

    def _turned(self, turn: Callable[..., Tensor], x: Tensor, at: Tensor) -> Tensor:
        if at.shape[1] == 1:
            return turn(self._module, x, self._rotary.tables(at[:, 0].expand(len(x), -1), x))
        heads = x.flatten(0, 1).unsqueeze(1)  # heads at places of their own: each as a row of a batch
        places = at.expand(len(x), -1, -1).flatten(0, 1)
        return turn(self._module, heads, self._rotary.tables(places, heads)).view_as(x)
