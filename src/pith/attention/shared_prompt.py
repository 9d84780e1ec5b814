"""Prompts that several recipes read: the model reads each once, and every recipe's cache is given what it computed.

Most methods act behind the attention of a prompt: they choose among its pairs, or encode them, once the prompt has
attended as in the dense model. What their layers are given is then the same queries, keys and values, and reading the
prompt again for each of them computes the same numbers again.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pith.attention.cache import PithCache
from pith.attention.call import Call
from pith.attention.companion import tell_after, tell_before
from pith.attention.layer import LayerCache
from pith.attention.signature import argument_names

_SHAREABLE = frozenset(
    {"input_ids", "attention_mask", "position_ids", "cache_position", "use_cache", "logits_to_keep", "return_dict"}
)
"""The arguments of a forward that can be shared; one with any other is run as it is."""


class _State(threading.local):
    shared: SharedPrompt | None = None  # the block of this thread


_state = _State()


@dataclass(frozen=True)
class _Attended:
    """What one layer was given in a prompt, and its dense attention."""

    call: Call
    query: Tensor
    key: Tensor
    value: Tensor
    versions: tuple[int, ...]

    @classmethod
    def of(cls, call: Call, query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> _Attended:
        states = (query, key, value, out)
        return cls(replace(call, attended=out), query, key, value, tuple(one._version for one in states))

    @property
    def unchanged(self) -> bool:
        """Whether none of the tensors was written to since; a cache may hold them as they are, and grow in place."""
        states = (self.query, self.key, self.value, self.call.attended)
        return all(one is not None and one._version == old for one, old in zip(states, self.versions, strict=True))


@dataclass
class _Read:
    """A prompt as the dense model reads it.

    Attributes:
        model, given: the model, and the arguments of its forward.
        layers: what each of Pith's layers was given, by its index.
        cache: the dense cache, of whose layers those that Pith leaves alone are copied.
        out: what the model's forward returned.
        tokens, mask, hidden: what its decoder was given, and returned.
    """

    model: Any
    given: Mapping[str, Any]
    layers: dict[int, _Attended] = field(default_factory=dict)
    cache: PithCache | None = None
    out: Any = None
    tokens: Any = None
    mask: Any = None
    hidden: Any = None


class _Listening(LayerCache):
    """A layer that notes what it is given."""

    heard: dict[int, _Attended]

    def attend(self, call: Call, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend, and note the call."""
        out = super().attend(call, query, key, value)
        self.heard[self.index] = _Attended.of(call, query, key, value, out)
        return out


class SharedPrompt:
    """The last prompt that was read while a block of `sharing_prompts` was open."""

    def __init__(self) -> None:
        self._read: _Read | None = None
        self.forwards = 0  # of prompts that the model read
        self.taken_over = 0  # by caches, of prompts that were read already

    def read(
        self,
        model: Any,
        cache: PithCache,
        given: Mapping[str, Any],
        dense: Callable[[], PithCache],
        forward: Callable[..., Any],
    ) -> Any:
        """Return what the model returns for a prompt, with the cache as it is behind it; None where it must be run.

        Args:
            model: the model.
            cache: an empty cache of a recipe.
            given: all arguments of the forward, by name.
            dense: makes an empty cache in which nothing acts.
            forward: the model's forward.
        """
        given = {name: value for name, value in given.items() if value is not None and name != "past_key_values"}
        if not given.keys() <= _SHAREABLE or torch.is_grad_enabled() or model.training or not _reads_densely(cache):
            return None
        known = self._read
        if known is None or not _same(known, model, given):
            self._read = None  # its memory is free before the next prompt is read
            known = self._read = _listen(model, given, dense(), forward)
            self.forwards += 1
        else:
            self.taken_over += 1
        _take_over(cache, known)
        return type(known.out)(**{**known.out, "past_key_values": cache})


@contextmanager
def sharing_prompts() -> Iterator[SharedPrompt]:
    """Prompts that begin a cache of Pith's are read once in this block, as far as one equals the one before it.

    Under recipes whose methods act behind the prompt's attention a forward gives the same tensors as it does outside of
    this block. Other recipes, and forwards with gradients or arguments beyond tokens, mask and positions, run as ever.
    The tensors of the last prompt are held until the block ends: its queries, keys, values and attention in each layer.
    """
    before, _state.shared = _state.shared, SharedPrompt()
    try:
        yield _state.shared
    finally:
        _state.shared = before


def shared_prompt() -> SharedPrompt | None:
    """Return that of the innermost block of this thread."""
    return _state.shared


def _reads_densely(cache: PithCache) -> bool:
    """Return whether a prompt attends as in the dense model, bit by bit, before anything acts on its pairs."""
    if not cache.served() or (cache.companion is not None and cache.companion.changes_prompt):
        return False
    for layer in cache.served():
        blocks = layer.reader is not None and layer.reader.reading.block is not None
        if layer.seen or layer.form != "text" or layer.answers.device is not None or blocks:
            return False
    return True


def _same(known: _Read, model: Any, given: Mapping[str, Any]) -> bool:
    if known.model is not model or known.given.keys() != given.keys():
        return False
    if not all(layer.unchanged for layer in known.layers.values()):
        return False
    return all(_equal(known.given[name], value) for name, value in given.items())


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return not isinstance(one, Tensor) and not isinstance(other, Tensor) and bool(one == other)


def _listen(model: Any, given: Mapping[str, Any], cache: PithCache, forward: Callable[..., Any]) -> _Read:
    """Read a prompt as the dense model does."""
    read = _Read(model, {name: value.clone() if isinstance(value, Tensor) else value for name, value in given.items()})
    for index, layer in enumerate(cache.layers):
        if isinstance(layer, LayerCache):
            heard = cache.layers[index] = _Listening(layer.index, layer.depth, layer.group, layer.answers)
            heard.heard = read.layers

    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    names = argument_names(decoder) if decoder is not None else []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        found = {**dict(zip(names, args, strict=False)), **kwargs}
        read.tokens, read.mask = found.get("input_ids"), found.get("attention_mask")
        read.hidden = getattr(out, "last_hidden_state", None)

    handle = decoder.register_forward_hook(note, with_kwargs=True) if isinstance(decoder, torch.nn.Module) else None
    try:
        read.out = forward(**given, past_key_values=cache)
    finally:
        if handle is not None:
            handle.remove()
    for layer in cache.served():
        layer.reset()  # what it stored is in `read.layers`
    read.cache = cache
    return read


def _take_over(cache: PithCache, read: _Read) -> None:
    """Give a recipe's empty cache a prompt that was read already."""
    assert read.cache is not None
    if cache.companion is not None:
        tell_before(cache.companion, cache, read.tokens, read.mask)
    for index in cache.left_alone:
        cache.layers[index] = copy.deepcopy(read.cache.layers[index])
    for layer in cache.served():
        known = read.layers[layer.index]
        out = layer.attend(known.call, known.query, known.key, known.value)
        assert out is known.call.attended, f"layer {layer.index} did not attend densely"
    if cache.companion is not None:
        tell_after(cache.companion, cache, read.tokens, read.mask, read.hidden)
