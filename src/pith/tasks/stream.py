"""Reading a text in parts, as `generate` does: the prompt in one go, then token by token."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pith.core import ModelError


def last_only(model: Any) -> dict[str, int]:
    """What a forward is told so that it gives the last token's logits only; nothing where the model cannot.

    The logits of a whole prompt may take more memory than all else.
    """
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}


def not_finite(model: Any) -> ModelError:
    """Return the error of a model whose logits hold a NaN or an infinite number."""
    dtype = str(getattr(model, "dtype", "its dtype")).removeprefix("torch.")
    return ModelError(
        f"{type(model).__name__} in {dtype} computes logits that are not finite (NaN or infinite) under this recipe; "
        "use a dtype with a wider range, such as float32, or another recipe"
    )


class Stream:
    """A batch of equally long sequences that a model reads part by part; nothing in them is padding.

    Args:
        model: a Transformers causal language model, with a recipe applied or not.

    Attributes:
        cache: what the model remembers of what it has read; None before the first part.
    """

    def __init__(self, model: Any) -> None:
        self.cache: Any = None
        self._model = model
        self._seen = 0
        self._last_only = last_only(model)

    def read(self, tokens: Int[Tensor, "batch new"]) -> Float[Tensor, "batch vocabulary"]:
        """Reads the next part; the logits of what follows it.

        Raises:
            ModelError: the model keeps no cache of what it has read.
        """
        logits: Tensor = self._forward(tokens, self._last_only)[:, -1]
        return logits

    def read_each(self, tokens: Int[Tensor, "batch new"]) -> Float[Tensor, "batch new vocabulary"]:
        """Reads the next part; the logits of what follows each of its tokens.

        Raises:
            ModelError: the model keeps no cache of what it has read.
        """
        return self._forward(tokens, {})

    @torch.no_grad()
    def _forward(self, tokens: Int[Tensor, "batch new"], options: dict[str, int]) -> Tensor:
        self._seen += tokens.shape[1]
        out = self._model(
            input_ids=tokens,
            attention_mask=tokens.new_ones(tokens.shape[0], self._seen),
            past_key_values=self.cache,
            use_cache=True,
            **options,
        )
        self.cache = getattr(out, "past_key_values", None)
        if self.cache is None:
            raise ModelError(
                f"{type(self._model).__name__} gives no key-value cache back, so it cannot be read in parts"
            )
        logits: Tensor = out.logits
        return logits
