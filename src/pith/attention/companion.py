"""What a method does around whole forwards of a model, where one layer at a time is not enough."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from pith.attention.numbering import refuse_late_rows
from pith.attention.signature import argument_names
from pith.attention.uncompiled import uncompiled
from pith.core import ModelError


class Companion:
    """Goes with one cache of one model, and is told of each forward that uses that cache.

    A method makes a fresh one for each cache. It keeps what it needs between forwards; what it keeps in tensors counts
    as bytes held.

    Class attributes:
        prompt_at_once: whether it acts on the first forward alone, so that each row must begin there.
        changes_prompt: whether the layers compute something else while they read a prompt.

    Attributes:
        model: the model, with its head; known from `begin` on.
        mask: the padding mask of the forward under way, if it has one.
        follows: whether a forward is under way that it follows.
    """

    prompt_at_once: ClassVar[bool] = False
    changes_prompt: ClassVar[bool] = True
    model: Any = None
    mask: Tensor | None = None
    follows: bool = False

    def begin(self, cache: Any, decoder: Any) -> None:
        """The cache was made, or this companion's copy has a copy of it; `decoder` is the model without its head."""

    def before(self, cache: Any, tokens: Int[Tensor, "batch new"]) -> None:
        """These tokens are about to be read."""

    def after(
        self,
        cache: Any,
        tokens: Int[Tensor, "batch new"],
        mask: Int[Tensor, "batch seen"] | None,
        hidden: Float[Tensor, "batch new hidden_dim"],
    ) -> None:
        """These tokens were read.

        Args:
            cache: the cache, which holds them.
            tokens: the tokens.
            mask: the forward's padding mask, if it had one.
            hidden: what the model's head is given.
        """

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """The cache makes these rows of the batch the new batch."""

    def tensors(self) -> list[Tensor]:
        """Every tensor that it keeps."""
        return []


def method_of(companion: Companion) -> str:
    """Return the name of the method that a companion belongs to: its module's."""
    return type(companion).__module__.rpartition(".")[2]


def tell_before(
    companion: Companion, cache: Any, tokens: Int[Tensor, "batch new"], mask: Int[Tensor, "batch seen"] | None
) -> None:
    """Tell a companion that a forward with its cache begins."""
    companion.mask, companion.follows = mask, True
    if companion.prompt_at_once and any(layer.numbering.rows is not None for layer in cache.served()):
        refuse_late_rows(mask, tokens.shape[1])
    companion.before(cache, tokens)


def tell_after(
    companion: Companion,
    cache: Any,
    tokens: Int[Tensor, "batch new"],
    mask: Int[Tensor, "batch seen"] | None,
    hidden: Float[Tensor, "batch kept hidden_dim"],
) -> None:
    """Tell a companion that a forward with its cache ended."""
    try:
        companion.after(cache, tokens, mask, hidden)
    finally:
        companion.mask, companion.follows = None, False


def accompany(companion: Companion, cache: Any, model: Any) -> None:
    """Tells a companion of every forward with its cache, for as long as the cache lives."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    if decoder is None or decoder is model:
        raise ModelError(f"{type(model).__name__} has no get_decoder(), so its forwards cannot be followed")
    known: Callable[[], Any] = weakref.ref(cache)
    names = argument_names(decoder)

    def given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """All arguments by name, if they are of a forward with this cache."""
        found = {**dict(zip(names, args, strict=False)), **kwargs}
        held = found.get("past_key_values")
        if held is None or held is not known() or getattr(held, "unwatched", False):
            return None
        if found.get("input_ids") is None:
            raise ModelError("a method of this recipe asks for tokens; give input_ids, not inputs_embeds")
        return found

    @uncompiled
    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if (found := given(args, kwargs)) is not None:
            tell_before(companion, found["past_key_values"], found["input_ids"], found.get("attention_mask"))

    @uncompiled
    def after(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if (found := given(args, kwargs)) is None:
            return
        if out is None:  # the forward raised
            companion.mask, companion.follows = None, False
            return
        mask, hidden = found.get("attention_mask"), out.last_hidden_state
        tell_after(companion, found["past_key_values"], found["input_ids"], mask, hidden)

    handles = [
        decoder.register_forward_pre_hook(before, with_kwargs=True),
        decoder.register_forward_hook(after, with_kwargs=True, always_call=True),
    ]
    for handle in handles:
        weakref.finalize(cache, handle.remove)
    companion.model = model
    companion.begin(cache, decoder)
