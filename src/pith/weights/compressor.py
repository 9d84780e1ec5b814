"""The contract of methods that change a model's weights."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pith.core import InputError, Method, ModelError, PithWarning, Recipe
from pith.weights.calibration import Calibration
from pith.weights.duplicate import duplicate, lay_out
from pith.weights.folder import as_saved
from pith.weights.pace import slower
from pith.weights.packed import PackedLinear
from pith.weights.ready import require_finite, require_in_memory, require_known_tokens


@dataclass(frozen=True, kw_only=True)
class Compressor(Method, ABC):
    """Changes a model's weights, once: a Transformers model comes in, a smaller one goes out.

    A method writes one thing, `change`. It is given a model of its own, whose tensors are shared with the model that
    came in: it puts new modules and new parameters in their places and never writes into a tensor.

    Class attributes:
        calibrated: whether the method reads texts.
        trains: whether it trains or searches for so long that a search for a recipe leaves it out unless it is named.
    """

    order: ClassVar[int] = 0
    calibrated: ClassVar[bool] = True
    trains: ClassVar[bool] = False

    @classmethod
    def always_named(cls) -> tuple[str, ...]:
        """Return the parameters that decide the bytes of the weights: what is searched first, groups and embeddings."""
        return (*[one.name for one in cls.parameters() if one.sweep][:1], "group_size", "embedding_bits")

    @abstractmethod
    def change(self, model: Any, calibration: Calibration) -> None:
        """Changes the model; replaces modules and parameters, writes into no tensor.

        Args:
            model: a causal language model in evaluation mode, the method's own.
            calibration: the texts, who is told how it goes on, and what an earlier try left behind.

        Raises:
            ModelError: the method cannot take the model; the message says why.
        """

    def fitted_to(self, model: Any) -> Compressor:
        """Return the method with those parameters as numbers that depend on the model, such as `group_size="auto"`.

        Raises:
            ModelError: the method cannot take the model.
        """
        return self

    def compress(self, model: Any, calibration: Calibration | None = None) -> Any:
        """The model with the method applied, as a new model; the one that came in stays as it is.

        What the method leaves alone is shared by both, so that together they take little more than one.

        Args:
            model: a loaded Transformers causal language model.
            calibration: the texts that it reads; a method that reads none needs none.

        Raises:
            InputError: the method reads texts, and none are given, or ones that the model cannot read.
            ModelError: the method cannot take the model, or its weights are not finite; the message says why.
        """
        require_in_memory(model)
        if calibration is None:
            if self.calibrated:
                raise InputError(f"{self.name} reads texts: give it a calibration, such as pith.calibration(tokenizer)")
            calibration = Calibration.none()
        require_finite(model, type(model).__name__)
        if self.calibrated:
            require_known_tokens(model, calibration)
        smaller, method = duplicate(model).eval(), self.fitted_to(model)
        with torch.no_grad():
            method.change(smaller, calibration.stage(method, model))
            lay_out(smaller)
        done = [*(getattr(model.config, "pith_recipe", None) or []), str(method)]
        smaller.config.pith_recipe = done
        as_saved(smaller)
        if not _packed(model) and _packed(smaller):
            for line in slower(smaller):
                self.warn(line)
        return smaller

    def predicted_bytes(self, model: Any) -> int | None:
        """The bytes that the weights will take, known before anything is done; None where only doing it tells."""
        return None

    def warn(self, text: str) -> None:
        """Says something that the user may not expect."""
        warnings.warn(f"{self.name}: {text}", PithWarning, stacklevel=3)

    def warn_unreached(self, names: Iterable[str], instead: str) -> None:
        """Names the layers that no token of the calibration reached, such as an expert's.

        Args:
            names: of the layers.
            instead: what was done with them.
        """
        if missed := list(names):
            shown = ", ".join(missed[:4]) + (f" and {len(missed) - 4} more" if len(missed) > 4 else "")
            self.warn(f"no token of the calibration reached {shown}; {instead}")


@dataclass(frozen=True, kw_only=True)
class Pruner(Compressor, ABC):
    """A compressor that removes weights; a recipe may hold several, which act in the order written.

    Class attributes:
        reads_weights: whether the method looks into single weights, which those of packed layers do not allow.
        shares: whether blocks read weights of others afterwards, so that none of them may go.
    """

    question: ClassVar[str] = "which weights are removed?"
    several: ClassVar[bool] = True
    contract: ClassVar[str] = "pruning"
    reads_weights: ClassVar[bool] = True
    shares: ClassVar[bool] = False

    def refuses_after(self, earlier: Method) -> str | None:
        """Single weights cannot be removed from packed layers, nor anything of a block that others read."""
        if getattr(earlier, "shares", False):
            return f"after {earlier.name} blocks read each other's weights; write {earlier.name} last"
        if self.reads_weights and earlier.contract == "quantization":
            return f"it looks into single weights, which {earlier.name} has packed; write it first"
        return None


def _packed(model: Any) -> bool:
    return any(isinstance(module, PackedLinear) for module in model.modules())


def compress(model: Any, recipe: Recipe | str, calibration: Calibration | None = None) -> Any:
    """The model with a recipe's methods applied that change weights, in the order written, as a new model.

    Args:
        model: a loaded Transformers causal language model; it stays as it is.
        recipe: a recipe or its text; methods that act later, on the cache say, may not stand in it.
        calibration: the texts that methods read, as `calibration(tokenizer)` gives them.

    Raises:
        InputError: a method reads texts, and none are given; or the recipe holds a method that does not change weights.
        ModelError: a method cannot take the model; the message says why.

    Example:
        smaller = pith.compress(model, "gptq(bits=4)", pith.calibration(tokenizer))
    """
    recipe = Recipe.parse(recipe) if isinstance(recipe, str) else recipe
    if len(recipe.rest):
        raise InputError(
            f"{recipe.rest} does not change weights; give compress recipe.weights, and apply the rest with pith.applied"
        )
    for method in recipe:
        if not isinstance(method, Compressor):
            raise ModelError(f"{method.name} changes weights in a way that is not known: it is no Compressor")
        model = method.compress(model, calibration)
    return model
