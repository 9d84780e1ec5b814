"""How likely given continuations are, read through the cache behind their contexts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pith.core import InputError, PithWarning
from pith.tasks.stream import Stream, not_finite

Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""A context and what follows it, as tokens; neither is empty."""

Answer = tuple[float, bool]
"""A continuation's log-likelihood, in nats, and whether greedy decoding would give it."""


@dataclass
class _Row:
    """Continuations of one context that differ in their last token only, and so are read once.

    Attributes:
        context: what is read as a prompt.
        middle: the continuation without its last token.
        ends: which requests they answer, and their last tokens.
    """

    context: tuple[int, ...]
    middle: tuple[int, ...]
    ends: list[tuple[int, int]] = field(default_factory=list)


def log_likelihoods(
    model: Any,
    pairs: Sequence[Pair],
    most: int,
    batch_size: int = 8,
    chunk: int = 1,
    told: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """The log-likelihood of each continuation, in nats, and whether greedy decoding would give it.

    The context is read as a prompt, so that a recipe makes the cache smaller; then the continuation, through it. Rows
    that are read together have contexts of one length: nothing is padded but behind a continuation's end.

    Args:
        model: a Transformers causal language model, with a recipe applied or not.
        pairs: contexts and continuations; a continuation has at most `most` tokens.
        most: tokens that the model can read; longer contexts lose their beginnings, with a warning.
        batch_size: the most sequences that are read at once.
        chunk: tokens of a continuation that are read at once.
        told: how many pairs are done, and of how many.

    Raises:
        InputError: a context or a continuation is empty, or a continuation is longer than `most`.
        ModelError: the model keeps no cache of what it has read, or its logits are not finite.
    """
    if not all(context and 0 < len(continuation) <= most for context, continuation in pairs):
        raise InputError(
            f"a context or an answer has no tokens, or an answer has more than the {most} tokens that the model reads; "
            "use a tokenizer that keeps the two apart, or a model with more positions"
        )
    found: dict[int, Answer] = {}
    rows = _rows(pairs, most)
    for _, group in groupby(rows, key=lambda row: len(row.context)):
        alike = list(group)
        for start in range(0, len(alike), batch_size):
            found.update(_read(model, alike[start : start + batch_size], chunk))
            if told:
                told(len(found), len(pairs))
    return [found[index] for index in range(len(pairs))]


def _rows(pairs: Sequence[Pair], most: int) -> list[_Row]:
    """What is to be read, sorted by the lengths of context and continuation."""
    rows: dict[Pair, _Row] = {}
    cut = 0
    for index, (context, continuation) in enumerate(pairs):
        # the last token is predicted, never read
        room = most + 1 - len(continuation)
        cut += len(context) > room
        key = (context[-room:], continuation[:-1])
        rows.setdefault(key, _Row(*key)).ends.append((index, continuation[-1]))
    if cut:
        warnings.warn(
            f"{cut} of {len(pairs)} contexts are longer than the model's {most} tokens and lose their beginnings",
            PithWarning,
            stacklevel=3,
        )
    return sorted(rows.values(), key=lambda row: (len(row.context), len(row.middle)))


def _read(model: Any, rows: Sequence[_Row], chunk: int) -> dict[int, Answer]:
    middle = torch.zeros(len(rows), max(len(row.middle) for row in rows), dtype=torch.long)
    for row, tokens in zip(rows, middle, strict=True):
        tokens[: len(row.middle)] = torch.tensor(row.middle, dtype=torch.long)
    middle = middle.to(model.device)
    totals, greedy = [0.0] * len(rows), [True] * len(rows)
    found: dict[int, Answer] = {}
    for place, logits in enumerate(_steps(model, torch.tensor([row.context for row in rows]), middle, chunk)):
        likely, best = logits.float().log_softmax(dim=-1), logits.argmax(dim=-1).tolist()
        for number, row in enumerate(rows):
            if place == len(row.middle):
                for index, end in row.ends:
                    found[index] = totals[number] + float(likely[number, end]), greedy[number] and best[number] == end
            elif place < len(row.middle):
                totals[number] += float(likely[number, row.middle[place]])
                greedy[number] = greedy[number] and best[number] == row.middle[place]
    if any(math.isnan(value) for value, _ in found.values()):
        raise not_finite(model)
    return found


def _steps(
    model: Any, contexts: Tensor, middle: Tensor, chunk: int
) -> Iterator[Float[Tensor, "batch vocabulary"]]:  # fmt: skip
    """The logits after the context, and after each token that follows it."""
    stream = Stream(model)
    yield stream.read(contexts.to(model.device))
    for start in range(0, middle.shape[1], chunk):
        yield from stream.read_each(middle[:, start : start + chunk]).unbind(dim=1)
