"""Candidates of assisted decoding: several decoded tokens that one forward verifies, and of which some are taken back.

`generate` announces them in two ways. The cache is told to record its past before the first forward, and each forward
that holds `n` candidates is asked for the logits of its last n + 1 tokens, while every other forward of `generate` is
asked for the last one only.
"""

from __future__ import annotations

from typing import Any

from pith.attention.cache import PithCache
from pith.attention.companion import method_of
from pith.core import InputError


def count_candidates(cache: PithCache, kwargs: dict[str, Any]) -> int:
    """Return how many of the newest tokens of a forward of `generate` are candidates.

    Args:
        cache: the forward's cache.
        kwargs: the forward's arguments.
    """
    logits, tokens = kwargs.get("logits_to_keep"), kwargs.get("input_ids")
    if not cache.by_generate or not isinstance(logits, int) or tokens is None or logits > tokens.shape[1]:
        return 0
    if cache.get_seq_length() and logits < tokens.shape[1]:  # a further part of a prompt, of which a user asked so many
        return 0
    return max(logits - 1, 0)


def expect_candidates(cache: PithCache, count: int) -> None:
    """Announce that the newest `count` tokens of the next forward are candidates, which `cache.crop` may take back.

    Raises:
        InputError: a method of the cache's recipe changes what it holds in a way that cannot be taken back.
    """
    if not count:
        return
    if cache.companion is not None:
        refuse_candidates(method_of(cache.companion), "acts around whole forwards")
    for layer in cache.served():
        evictor, reader = layer.evictor, layer.reader
        if evictor is not None and evictor.due(prefill=False):
            refuse_candidates(evictor.eviction.name, "drops or counts pairs at every decoded token")
        if reader is not None and not reader.reading.restartable:
            refuse_candidates(reader.reading.name, "chooses by what earlier tokens have read")
        layer.candidates = count


def refuse_candidates(name: str, why: str) -> None:
    """Raise the one line that names assisted decoding.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"{name} {why} and cannot take back candidates, so assisted decoding does not work with it: generate without "
        f"assistant_model and prompt_lookup_num_tokens, or leave {name} out of the recipe"
    )
