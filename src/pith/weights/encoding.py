"""Encode texts for tasks, calibration and generation, all in the same way."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pith.core import InputError

_PROBES = ("a", "1", "the", " the")
"""Short texts, of which a tokenizer knows at least one."""


def encode(tokenizer: Any, text: str, *, begin: bool = True, markup: bool = False) -> list[int]:
    """Return a text's tokens, without those that the tokenizer appends to a sequence.

    A tokenizer may end each sequence with an end token (`add_eos_token=True`), behind which a model does not continue
    the text; it is left out.

    Args:
        tokenizer: a Transformers tokenizer.
        text: the text; it may be longer than any model reads.
        begin: whether the tokens that begin a sequence come first.
        markup: whether special tokens that are spelled in the text, such as "</s>", are read as these tokens; if not,
            they are plain text, as the rest of a document.

    Raises:
        InputError: the text cannot be written in UTF-8, or it spells a special token that the tokenizer cannot read as
            plain text.
    """
    spelled = [] if markup else special_in(tokenizer, text)
    ids = _ids(tokenizer, text, add_special_tokens=False, **({"split_special_tokens": True} if spelled else {}))
    if spelled:
        found = set(tokenizer.convert_ids_to_tokens(sorted(set(ids)))) & set(spelled) - {tokenizer.unk_token}
        if found:
            raise InputError(
                f"the text holds {min(found)!r}, which {type(tokenizer).__name__} reads as a special token everywhere; "
                "remove it from the text"
            )
    return [*(beginning(tokenizer) if begin else ()), *ids]


def beginning(tokenizer: Any) -> tuple[int, ...]:
    """Return the tokens that the tokenizer puts before each text: none, the one that begins a sequence, or several.

    Raises:
        InputError: the tokenizer knows no text, or reads a text in another way when it adds special tokens.
    """
    for probe in _PROBES:
        text, whole = _ids(tokenizer, probe, add_special_tokens=False), _ids(tokenizer, probe)
        for start in range(len(whole) - len(text) + 1 if text else 0):
            if whole[start : start + len(text)] == text:
                return tuple(whole[:start])
    raise InputError(
        f"{type(tokenizer).__name__} does not show what begins a sequence: {_PROBES[0]!r} alone is not part of what it "
        "encodes with special tokens; use another tokenizer"
    )


def special_in(tokenizer: Any, text: str) -> list[str]:
    """Return the special tokens that are spelled in a text."""
    return [one for one in _special(tokenizer, len(tokenizer)) if one in text]


@lru_cache(maxsize=8)  # a tokenizer builds this list anew each time
def _special(tokenizer: Any, size: int) -> tuple[str, ...]:
    """Return the spellings of a tokenizer's special tokens; `size` is its number of tokens, for the cache."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return tuple(sorted({*(one.content for one in added if one.special), *tokenizer.all_special_tokens} - {""}))


def _ids(tokenizer: Any, text: str, **options: bool) -> list[int]:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text holds {text[error.start]!r} at character {error.start}, which is not in Unicode text: it was "
            "made from bytes that are not UTF-8; allowed is text in UTF-8"
        ) from None
    return list(tokenizer(text, verbose=False, **options).input_ids)
