"""Seconds of prefill and decoding, in pairs with the dense model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from pith.measure.bytes import cache_bytes
from pith.measure.measurement import Speed
from pith.models import Subject
from pith.tasks.heldout import heldout_text
from pith.tasks.stream import Stream
from pith.tasks.text import beginning, tokens_of

DECODED = 32
"""Tokens that each run decodes."""


@dataclass(frozen=True)
class Run:
    """One prompt read and continued greedily: seconds (of decoding, a token's) and bytes that the cache then held."""

    prefill: float
    decode: float
    prefill_bytes: int
    decoded_bytes: int


def run_once(subject: Subject, prompt: Int[Tensor, "1 length"], tokens: int = DECODED) -> Run:
    """Reads a prompt, decodes `tokens` tokens greedily, and looks at the clock and the cache after both."""
    with subject.applied() as model:
        stream, device = Stream(model), prompt.device
        begun = _now(device)
        logits = stream.read(prompt)
        prefill, prefill_bytes = _now(device) - begun, cache_bytes(stream.cache)
        begun = _now(device)
        for _ in range(tokens):
            logits = stream.read(logits.argmax(dim=-1, keepdim=True))
        decode = (_now(device) - begun) / tokens
        return Run(prefill, decode, prefill_bytes, cache_bytes(stream.cache))


def run_pairs(
    subject: Subject,
    prompt: Int[Tensor, "1 length"],
    runs: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Run], list[Run]]:
    """Runs of the subject and of its model in plain Transformers, by turns, after one pair that is not counted.

    The two of a pair see the same state of the machine, and which goes first alternates, so that neither what slows
    the machine for a while nor what the first leaves behind falls on one of them alone.
    """
    dense = Subject(subject.model, subject.tokenizer)
    mine: list[Run] = []
    others: list[Run] = []
    for pair in range(runs + 1):
        turns = [(subject, mine), (dense, others)]
        for who, found in turns if pair % 2 else reversed(turns):
            found.append(run_once(who, prompt))
        if progress and pair:
            progress(pair, runs)
    return mine[1:], others[1:]


def speed(mine: Sequence[Run], dense: Sequence[Run]) -> Speed:
    """The medians of pairs of runs."""
    ratios = [m.decode / d.decode for m, d in zip(mine, dense, strict=True)]
    ratio = median(ratios)
    return Speed(
        prefill=median(m.prefill for m in mine),
        dense_prefill=median(d.prefill for d in dense),
        prefill_ratio=median(m.prefill / d.prefill for m, d in zip(mine, dense, strict=True)),
        decode=median(m.decode for m in mine),
        dense_decode=median(d.decode for d in dense),
        decode_ratio=ratio,
        spread=max(abs(r - ratio) for r in ratios) / ratio,
        runs=len(mine),
    )


def timed_prompt(tokenizer: Any, length: int, seed: int) -> Int[Tensor, "1 length"]:
    """`length` tokens of the held-out text from a random place on, wrapped round its end, begun as a sequence is."""
    begin, text = beginning(tokenizer), tokens_of(tokenizer, heldout_text())
    start = Random(seed).randrange(len(text))
    row = [*begin, *(text[(start + i) % len(text)] for i in range(length))][:length]
    return torch.tensor([row])


def _now(device: torch.device) -> float:
    """The clock, once the device has done what it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
