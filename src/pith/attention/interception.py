"""The forwards of a model while recipes are applied to it: each begins a cache of Pith's, or is refused.

`model.forward` is replaced on the instance, not hooked: PEFT calls it directly. Uses are counted, so that blocks may
end in any order and in any thread; the last one restores the model.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

from pith.attention import in_flight
from pith.attention.cache import PithCache
from pith.attention.candidates import count_candidates, expect_candidates
from pith.attention.given import refuse_attentions, replaces_cache
from pith.attention.interface import NAME
from pith.attention.shared_prompt import shared_prompt
from pith.attention.signature import argument_names
from pith.attention.support import require_model, set_attention
from pith.attention.uncompiled import original, uncompiled
from pith.core import InputError, ModelError, Recipe

_lock = threading.RLock()
_interceptors: weakref.WeakKeyDictionary[Any, Interceptor] = weakref.WeakKeyDictionary()


class Use:
    """One block in which a recipe is applied.

    Args:
        recipe: the recipe.
        make: makes an empty cache.
        dense: makes one in which nothing acts.

    Attributes:
        forwards: the model's forwards for which this block was in force.
        acted: whether one of them read a token into a cache of Pith's.
        raised: whether one of them raised, so that the user knows that something is wrong.
    """

    def __init__(self, recipe: Recipe, make: Callable[[], PithCache], dense: Callable[[], PithCache]) -> None:
        self.recipe, self.make, self.dense = recipe, make, dense
        self.thread = threading.get_ident()
        self.forwards = 0
        self.acted = self.raised = False


def enter(model: Any, use: Use) -> PithCache:
    """Put a recipe into force for the model's forwards; return an empty cache as they will begin.

    Raises:
        ModelError: the model cannot be served; it is left as it was.
    """
    require_model(model)
    with _lock:
        interceptor = _interceptors.get(model)
        if interceptor is None:
            interceptor = Interceptor(model)
        try:
            first = use.make()  # what cannot be is raised now, not at the first forward
            set_attention(model, NAME)
        except BaseException:
            if not interceptor.uses:
                set_attention(model, interceptor.attention)
            raise
        if not interceptor.uses:
            interceptor.install()
            _interceptors[model] = interceptor
        interceptor.uses.append(use)
    return first


def leave(model: Any, use: Use) -> None:
    """Take a recipe out of force; after the last one the model is what it was."""
    with _lock:
        interceptor = _interceptors[model]
        interceptor.uses.remove(use)
        if not interceptor.uses:
            del _interceptors[model]
            interceptor.uninstall()


class Interceptor:
    """What stands in for `model.forward` while recipes are applied to the model.

    Attributes:
        uses: the blocks that were entered and not left, in order.
        attention: the model's attention implementation before the first.
    """

    def __init__(self, model: Any) -> None:
        self.uses: list[Use] = []
        self.attention = getattr(getattr(model, "config", None), "_attn_implementation", None)
        self._model = model
        self._own: Any = None
        self._replaced: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def intercepted(self) -> Any:
        """The model's forward without any recipe."""
        return self._forward

    def install(self) -> None:
        """Replace `model.forward` on the instance.

        Raises:
            ModelError: the model's forward takes no `past_key_values`.
        """
        self._own = vars(self._model).get("forward")
        self._forward = self._model.forward
        self._names = argument_names(self._model)
        if "past_key_values" not in self._names:
            name = type(self._model).__name__
            set_attention(self._model, self.attention)
            raise ModelError(
                f"{name} takes no past_key_values: its cache is of another kind, which Pith does not serve"
            )
        functools.update_wrapper(self, self._forward, updated=())
        self._model.forward = self

    def uninstall(self) -> None:
        """Restore `model.forward` and the attention implementation."""
        if vars(self._model).get("forward") is self:
            del self._model.forward
            if self._own is not None:
                self._model.forward = self._own
        set_attention(self._model, self.attention)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model's forward under the recipe in force."""
        return self._run(args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return the forward of the model's copy: no recipe is applied to that."""
        copied = memo.get(id(self._model), self._model)
        return type(copied).forward.__get__(copied)

    @uncompiled
    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        use = self._in_force()
        if use is None or len(args) > len(self._names):
            return self._forward(*args, **kwargs)
        given = dict(zip(self._names, args, strict=False))
        if repeated := given.keys() & kwargs.keys():
            raise TypeError(f"{type(self._model).__name__}.forward() got multiple values for {sorted(repeated)[0]!r}")
        try:
            out = self._under(use, {**given, **kwargs})
        except BaseException:
            use.raised = True
            raise
        use.forwards += 1
        return out

    def _under(self, use: Use, kwargs: dict[str, Any]) -> Any:
        refuse_attentions(self._model, kwargs)
        cache = kwargs.get("past_key_values")
        if replaces_cache(self._model, use.recipe, kwargs, self._replaced):
            made = use.make()
            made.take_over(cache)
            if cache is not None:
                self._replaced.add(cache)
            cache = kwargs["past_key_values"] = made
        if not isinstance(cache, PithCache):
            return original(self._forward)(**kwargs)
        cache.require_whole()
        expect_candidates(cache, count_candidates(cache, kwargs))
        in_flight.clear()
        try:
            out = self._shared(use, cache, kwargs)
            if out is None:
                out = original(self._forward)(**kwargs)
            in_flight.require_taken()
        except BaseException:
            cache.interrupted = True
            raise
        finally:
            in_flight.clear()
        use.acted = use.acted or any(layer.seen for layer in cache.served())
        return out

    def _shared(self, use: Use, cache: PithCache, kwargs: dict[str, Any]) -> Any:
        """What a prompt gives that several recipes share; None where it must be read."""
        shared = shared_prompt()
        if shared is None or any(layer.seen for layer in cache.served()):
            return None
        return shared.read(self._model, cache, kwargs, use.dense, original(self._forward))

    def _in_force(self) -> Use | None:
        """The innermost block of this thread; without one, that of the only thread that has any.

        Raises:
            InputError: several other threads have blocks.
        """
        with _lock:
            uses, here = list(self.uses), threading.get_ident()
        if not uses:
            return None
        mine, threads = [use for use in uses if use.thread == here], len({use.thread for use in uses})
        if not mine and threads > 1:
            raise InputError(
                f"{type(self._model).__name__} has recipes applied in {threads} other threads; "
                "which one counts here is not known: call pith.applied(...) in this thread too"
            )
        return (mine or uses)[-1]
