"""Texts as tokens."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=4)  # every recipe of a comparison reads the same text
def tokens_of(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The text's tokens, without those that begin or end a sequence; the text may be longer than any model reads."""
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def beginning(tokenizer: Any) -> tuple[int, ...]:
    """The tokens with which the tokenizer begins every sequence: one or none."""
    return tuple(tokenizer("").input_ids)
