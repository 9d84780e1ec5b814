"""Turning keys back to before their rotation, and placing them at other positions, as the model itself rotates them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pith.core import ModelError

Tables = tuple[Tensor, Tensor]
"""cos and sin of the angle of each pair of channels, [batch, token, pair]."""

Order = Literal["halves", "neighbours"]
"""Which channels form a pair: channel i and i + pairs, or 2 i and 2 i + 1."""


@dataclass(frozen=True)
class Turn:
    """Which channels of a head a model rotates, and where its tables hold the angle of each pair.

    Attributes:
        start, pairs: the rotated channels are [start, start + 2 * pairs); the others pass through.
        order: how these channels are paired.
        table: how the tables repeat the angles, each of which they hold twice; None where they hold each once.
        backward: whether the model turns by the negative of the tables' angles.
    """

    start: int
    pairs: int
    order: Order = "halves"
    table: Order | None = "halves"
    backward: bool = False

    def of_tables(self, cos: Tensor, sin: Tensor) -> Tables:
        """One entry for each pair."""
        if self.table == "halves":
            cos, sin = cos[..., : self.pairs], sin[..., : self.pairs]
        elif self.table == "neighbours":
            cos, sin = cos[..., ::2], sin[..., ::2]
        return cos, -sin if self.backward else sin

    def apply(self, x: Float[Tensor, "batch head token dim"], tables: Tables) -> Float[Tensor, "batch head token dim"]:
        """Each pair (a, b) of channels as (a cos - b sin, b cos + a sin), in the dtype of x."""
        cos, sin = (table.unsqueeze(1) for table in tables)
        end = self.start + 2 * self.pairs
        part = x[..., self.start : end]
        if self.order == "halves":
            a, b = part[..., : self.pairs], part[..., self.pairs :]
            turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
        else:
            a, b = part[..., ::2], part[..., 1::2]
            turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
        turned = turned.to(x.dtype)
        if 2 * self.pairs == x.shape[-1]:
            return turned
        return torch.cat([x[..., : self.start], turned, x[..., end:]], dim=-1)


@dataclass(frozen=True)
class Probe:
    """What one layer gave its attention function for one token at several positions, one a row.

    A token alone attends to itself only, so what a layer is given does not depend on the position: the keys and queries
    of the rows differ by their rotation and by nothing else.

    Attributes:
        index: the layer.
        places: the positions; the first is 0.
        query, key: [row, head, 1, head_dim].
        handed: whether the attention function was given the positions.
    """

    index: int
    places: Int[Tensor, "row 1"]
    query: Float[Tensor, "row query_head 1 head_dim"]
    key: Float[Tensor, "row kv_head 1 head_dim"]
    handed: bool


class Rotary:
    """The rotary embedding of one kind of layer of a model.

    A rotary embedding multiplies pairs of channels by [[cos, -sin], [sin, cos]] with angles position * frequency. The
    inverse is the same with -sin, divided by cos^2 + sin^2, which differs from 1 where a model scales its tables
    (YaRN) or rounds them (bfloat16).

    Args:
        embedding: the model's module that gives cos and sin.
        layer_type: what the module takes as a third argument, for models whose layers rotate differently.
        turn: which channels are rotated, and how they are paired.
    """

    def __init__(self, embedding: nn.Module, layer_type: str | None, turn: Turn) -> None:
        self._embedding, self._layer_type, self.turn = embedding, layer_type, turn
        self._last: tuple[Tensor, int, int, Tables] | None = None

    def fresh(self) -> Rotary:
        """The same rotation for another cache: nothing that one forward computed is shared."""
        return Rotary(self._embedding, self._layer_type, self.turn)

    def tables(self, positions: Int[Tensor, "batch token"], like: Tensor) -> Tables:
        """The model's cos and sin at text positions, in the dtype that the model rotates tensors like `like` with."""
        return self.turn.of_tables(*_tables(self._embedding, self._layer_type, positions, like))

    def tables_before(self, positions: Int[Tensor, "batch query"], stored: int, moved: int, like: Tensor) -> Tables:
        """The tables of the first `moved` of `stored` keys that stand without a gap and end with the newest token.

        The layers of one forward ask for the same, with the same `positions`, and share the answer.
        """
        if self._last is None or self._last[0] is not positions or self._last[1:3] != (stored, moved):
            behind = stored - 1 - torch.arange(moved, device=like.device)
            places = (positions[:, -1:] - behind).clamp(min=0)
            self._last = positions, stored, moved, self.tables(places, like)
        return self._last[3]

    def rotate(self, x: Float[Tensor, "batch head token dim"], tables: Tables) -> Float[Tensor, "batch head token dim"]:
        """x rotated by the tables' angles."""
        return self.turn.apply(x, tables)

    def unrotate(
        self, x: Float[Tensor, "batch head token dim"], tables: Tables
    ) -> Float[Tensor, "batch head token dim"]:
        """The x that `rotate` turned into this one; computed in float32, returned in the dtype of `x`."""
        cos, sin = tables[0].float(), tables[1].float()
        size = cos.square() + sin.square()
        return self.turn.apply(x.float(), (cos / size, -sin / size)).to(x.dtype)

    def error(self, probe: Probe) -> float:
        """How far keys and queries, placed by this rotation, are from the model's own, as a share of their norm.

        Both ways are tried: from the first place to each place, and from each place back to the first.
        """
        worst = 0.0
        first = probe.places[:1]
        for x in (probe.query, probe.key):
            at, here = self.tables(probe.places, x), self.tables(first.expand_as(probe.places), x)
            start = x[:1].expand_as(x)
            there = self.rotate(self.unrotate(start, here), at)
            back = self.rotate(self.unrotate(x, at), here)
            for got, want in ((there, x), (back, start)):
                worst = max(worst, float((got.float() - want.float()).norm() / want.float().norm()))
        return worst


def fit_rotary(model: nn.Module, layer_type: str | None, probe: Probe, known: Iterable[Rotary] = ()) -> Rotary:
    """Find the rotation that a layer was seen to make.

    Args:
        model: a loaded Transformers model.
        layer_type: the layer's entry in `config.layer_types`.
        probe: what the layer was seen to make.
        known: rotations of other layers, of which the first that fits is returned.

    Raises:
        ModelError: the layer does not rotate, or in a way that cannot be computed for other positions: the frequencies
            depend on the length of the text, the positions are not handed on, or no module of the model gives the
            tables.
    """
    name, place = type(model).__name__, "so its keys cannot be placed at other positions"
    found = _embeddings(model)
    if not found:
        raise ModelError(f"{name} has no rotary embedding, {place}")
    for embedding in found:
        kinds = getattr(embedding, "rope_type", "default")
        kind = kinds.get(layer_type, "default") if isinstance(kinds, dict) else kinds
        if kind in ("dynamic", "longrope"):
            raise ModelError(
                f"{name} rotates with {kind!r} frequencies, which depend on the length of the text; keys can be placed "
                "at other positions only where they do not"
            )
    allowed = max(1e-4, 8 * torch.finfo(probe.key.dtype).eps)
    if float((probe.key - probe.key[:1]).float().norm()) <= allowed * float(probe.key.float().norm()):
        raise ModelError(f"layer {probe.index} of {name} has no rotary positions, {place}")
    if not probe.handed:
        raise ModelError(f"{name} does not hand position_ids to its attention function, {place}")
    for rotary in known:
        if rotary.error(probe) <= allowed:
            return rotary
    tried = ((rotary.error(probe), rotary) for rotary in _candidates(found, layer_type, probe))
    error, best = min(tried, key=lambda pair: pair[0], default=(float("inf"), None))
    if best is None or not error <= allowed:
        raise ModelError(
            f"layer {probe.index} of {name} does not rotate its keys and queries as the model's rotary embedding says, "
            f"{place}"
        )
    return best


def conventional_rotary(model: nn.Module, layer_type: str | None) -> Rotary:
    """The rotation of whole heads by halves, for a model without weights, whose layers cannot be observed."""
    found = _embeddings(model)
    if not found:
        raise ModelError(
            f"{type(model).__name__} has no rotary embedding, so its keys cannot be placed at other positions"
        )
    kinds = getattr(found[0], "rope_type", "default")
    pairs = next((b.shape[-1] for n, b in found[0].named_buffers() if n.endswith("inv_freq")), 0)
    return Rotary(found[0], layer_type if isinstance(kinds, dict) else None, Turn(0, pairs))


def _embeddings(model: nn.Module) -> list[nn.Module]:
    """The modules that give cos and sin for text."""
    kinds_of_module = ((m, type(m).__name__) for m in model.modules())
    return [m for m, kind in kinds_of_module if kind.endswith("RotaryEmbedding") and "Vision" not in kind]


def _candidates(found: list[nn.Module], layer_type: str | None, probe: Probe) -> Iterator[Rotary]:
    """Every rotation that the model's tables allow for heads of this size."""
    dim = probe.key.shape[-1]
    for embedding in found:
        for third in (layer_type, None) if layer_type is not None else (None,):
            try:
                cos, _ = _tables(embedding, third, probe.places, probe.key)
            except (TypeError, KeyError, AttributeError, ValueError):
                continue  # the module takes no layer type, or does not know this one
            if cos.ndim != 3:
                continue
            kinds: list[tuple[int, Order | None]] = [(cos.shape[-1], None)]
            if cos.shape[-1] % 2 == 0:
                kinds = [(cos.shape[-1] // 2, "halves"), (cos.shape[-1] // 2, "neighbours"), *kinds]
            for pairs, table in kinds:
                for start in sorted({0, dim - 2 * pairs}):
                    for order, backward in itertools.product(get_args(Order), (False, True)):
                        if 2 * pairs <= dim:
                            yield Rotary(embedding, third, Turn(start, pairs, order, table, backward))


def _tables(embedding: nn.Module, layer_type: str | None, positions: Tensor, like: Tensor) -> Tables:
    """cos and sin as the model's module gives them; some give complex numbers."""
    given = embedding(like, positions) if layer_type is None else embedding(like, positions, layer_type)
    if isinstance(given, Tensor):
        return given.real, given.imag
    cos, sin = given
    return cos, sin


class Rotor:
    """The rotation of one layer's queries and keys in one forward.

    Args:
        rotary: of the layer's kind.
        offset: [batch, 1], the text position of a row's first real token, usually 0.
    """

    def __init__(self, rotary: Rotary, offset: Int[Tensor, "batch 1"]) -> None:
        self._rotary, self._offset = rotary, offset

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
        return self._rotary.rotate(x, (cos.mean(1, keepdim=True), sin.mean(1, keepdim=True)))

    def _turned(self, turn: Callable[[Tensor, Tables], Any], x: Tensor, at: Tensor) -> Tensor:
        if at.shape[1] == 1:
            turned: Tensor = turn(x, self._rotary.tables(at[:, 0].expand(len(x), -1), x))
            return turned
        heads = x.flatten(0, 1).unsqueeze(1)  # heads at places of their own: each as a row of a batch
        places = at.expand(len(x), -1, -1).flatten(0, 1)
        turned = turn(heads, self._rotary.tables(places, heads))
        return turned.view_as(x)
