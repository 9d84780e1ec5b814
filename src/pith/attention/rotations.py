"""How each layer of a model rotates, found by observing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pith.attention import in_flight
from pith.attention.call import Call
from pith.attention.interface import NAME
from pith.attention.layer import LayerCache
from pith.attention.rotary import Probe, Rotary, conventional_rotary, fit_rotary
from pith.attention.support import set_attention
from pith.attention.trial import dense_cache, forward, plain_tokens, takes_positions, undisturbed, without_weights
from pith.core import ModelError

PLACES = (0, 1, 7, 60)
"""The text positions at which a layer's rotation is observed."""


@dataclass
class Observed:
    """What is known of a model's rotations.

    Attributes:
        probes: what each layer that Pith serves was seen to rotate, once a method has needed it.
        rotaries: the rotation of each layer for which a method has needed it.
    """

    probes: dict[int, Probe] | None = None
    rotaries: dict[int, Rotary] = field(default_factory=dict)


class Rotations:
    """How each layer of a model rotates, for one cache.

    Args:
        model: the model.
        observed: what is known of it.
    """

    def __init__(self, model: Any, observed: Observed) -> None:
        self._model, self._observed = model, observed
        self._made: dict[int, Rotary] = {}

    def of(self, index: int) -> Rotary:
        """The rotation of a layer, one object for all layers that rotate alike.

        Raises:
            ModelError: keys of this layer cannot be placed at other positions; the message says why.
        """
        found = self._observed.rotaries.get(index)
        if found is None:
            found = self._observed.rotaries[index] = self._fit(index)
        return self._made.setdefault(id(found), found.fresh())

    def _fit(self, index: int) -> Rotary:
        config = self._model.config.get_text_config(decoder=True)
        types: Sequence[str] | None = getattr(config, "layer_types", None)
        kind = types[index] if types else None
        if without_weights(self._model):
            return conventional_rotary(self._model, kind)
        if self._observed.probes is None:
            self._observed.probes = _probe(self._model)
        probe = self._observed.probes[index]
        return fit_rotary(self._model, kind, probe, self._observed.rotaries.values())


class _Noting(LayerCache):
    """A layer's cache that notes what it is given."""

    noted: tuple[Tensor, Tensor, Call] | None = None

    def attend(self, call: Call, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As every `LayerCache`."""
        self.noted = query, key, call
        return super().attend(call, query, key, value)


def _probe(model: Any) -> dict[int, Probe]:
    """Every served layer's queries and keys of one token at each of `PLACES`, one a row.

    Raises:
        ModelError: the model takes no text positions.
    """
    name = type(model).__name__
    if not takes_positions(model):
        raise ModelError(f"{name} takes no position_ids, so its keys cannot be placed at other positions")
    config = model.config.get_text_config(decoder=True)
    most = getattr(config, "max_position_embeddings", None) or PLACES[-1] + 1
    places = [place for place in PLACES if place < most]
    tokens = plain_tokens(model, 1, 1).expand(len(places), 1)
    positions = torch.tensor(places, device=tokens.device).unsqueeze(1)
    cache = dense_cache(model, _Noting)
    with undisturbed(model), torch.no_grad():
        set_attention(model, NAME)
        try:
            forward(model, tokens, None, position_ids=positions, past_key_values=cache)
        finally:
            in_flight.clear()
    probes = {}
    for layer in cache.served():
        assert isinstance(layer, _Noting)
        if layer.noted is not None:
            query, key, call = layer.noted
            handed = call.positions is not None and call.positions.ndim == 2
            probes[layer.index] = Probe(layer.index, positions.to(key.device), query, key, handed)
    return probes
