"""Bits per byte of a text that follows a long context."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pith.core import InputError
from pith.tasks.base import Quality
from pith.tasks.interval import t_interval
from pith.tasks.windows import Windows

_AROUND = 4
"""The most tokens that share one character: the bytes of the longest one in UTF-8."""


@dataclass(frozen=True, kw_only=True)
class BitsPerByte(Windows):
    """How many bits the model needs for a byte of text after a long context; models with other tokenizers compare.

        bits_per_byte = sum_{window, i < scored} -log2 p(x_{length + i} | x_{< length + i}) / bytes of the scored text

    The windows and how they are read are those of `perplexity`. Bytes are those of UTF-8; a character that several
    tokens share counts where the last of them stands, so that one at a window's edge is counted once or not at all. The
    interval is Student's over the windows.
    """

    metric: ClassVar[str] = "bits per byte"
    oracle: ClassVar[float] = 0.0

    def quality(self, losses: Float[Tensor, "count scored"], tokenizer: Any) -> Quality:
        """`scores` are the windows' bits over the windows' mean bytes, so that their mean is the value; the curve is in
        bits per byte, by the number of tokens that stand before each stretch.

        Raises:
            InputError: the scored tokens hold no whole character.
        """
        edges, bits = self.edges(), losses / math.log(2)
        held = self.bytes(tokenizer)[: len(losses)]
        if not held.sum():
            raise InputError(f"{self.name}: scored={self.scored} tokens hold no whole character; allowed are more")
        scores = (bits.sum(dim=1) / (held.sum() / len(losses))).tolist()
        value = float(bits.sum() / held.sum())
        points = zip(pairwise(edges), held.sum(dim=0).tolist(), strict=True)
        curve = tuple((self.length + a, float(bits[:, a:b].sum()) / size) for (a, b), size in points if size)
        return Quality(value, *t_interval(scores), len(scores), tuple(scores), curve=curve)

    def bytes(self, tokenizer: Any) -> Int[Tensor, "count bins"]:
        """The bytes that end in each stretch of each window's scored tokens."""
        rows = []
        for tokens, before in self.stretches(tokenizer, _AROUND):
            whole = _text(tokenizer, tokens)
            until = [_shared(_text(tokenizer, tokens[: before + edge]), whole) for edge in self.edges()]
            rows.append([b - a for a, b in pairwise(until)])
        return torch.tensor(rows)


def _shared(part: str, whole: str) -> int:
    """The bytes in which two texts begin alike; an unfinished character decodes to something else than the whole."""
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(part, whole, strict=False))
    return sum(len(character.encode()) for character, _ in alike)


def _text(tokenizer: Any, tokens: tuple[int, ...]) -> str:
    text: str = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
