"""Texts as tokens."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pith.weights.encoding import beginning, encode, special_in

__all__ = ["beginning", "encode", "special_in", "tokens_of"]


@lru_cache(maxsize=4)  # every recipe of a comparison reads the same text
def tokens_of(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Return the text's tokens, without those that begin a sequence; the text may be longer than any model reads.

    Raises:
        InputError: the text cannot be encoded; see `encode`.
    """
    return tuple(encode(tokenizer, text, begin=False))
