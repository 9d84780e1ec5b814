"""Seconds of prefill and decoding, in pairs with the dense model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from pith.core import PithError
from pith.measure.bytes import cache_bytes
from pith.measure.measurement import Speed
from pith.models import Subject
from pith.tasks.heldout import heldout_text
from pith.tasks.stream import Stream
from pith.tasks.text import beginning, tokens_of
from pith.weights.size import weight_bytes
from pith.weights.turns import outermost

DECODED = 32
"""Tokens that each run decodes."""

CLEAR = 0.05
"""A decode ratio with a spread of at most this share needs no more pairs."""

RUNS = 5
"""Pairs of timed runs where nothing else is asked."""

SHORT, LONG = 64, 2.0
"""Tokens that warm up a model which takes at least so many seconds for a run."""

ENOUGH = 3
"""Pairs of such long runs that are enough where their ratios agree; of more than `RUNS` all are taken."""

PATIENCE, LONGER = 4, 2.0
"""Pairs that a noisy ratio may take, as a multiple of those asked for, and the seconds that they may take."""


@dataclass(frozen=True)
class Run:
    """One prompt read and continued greedily: seconds (of decoding, a token's) and bytes that the cache then held.

    The peak is the allocator's, weights included, and None where the device has no such allocator.
    """

    prefill: float
    decode: float
    prefill_bytes: int
    decoded_bytes: int
    peak: int | None = None


class Whole:
    """How a run is read off: seconds and bytes count as they are. See `pith.measure.sample` for another way."""

    def seconds(self, total: float) -> float:
        """What counts of the seconds since this was last asked."""
        return total

    def bytes(self, cache: Any) -> int:
        """What a cache counts."""
        return cache_bytes(cache)


_WHOLE = Whole()


def run_once(
    subject: Subject, prompt: Int[Tensor, "batch length"], tokens: int = DECODED, counted: Whole = _WHOLE
) -> Run:
    """Reads a prompt, decodes `tokens` tokens greedily, and looks at the clock and the cache after both."""
    with subject.applied() as model:
        stream, device = Stream(model), prompt.device
        others = 0  # what other models hold meanwhile, the dense one beside a smaller one say
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            others = torch.cuda.memory_allocated(device) - weight_bytes(model)
        begun = now(device)
        logits = stream.read(prompt)
        prefill, prefill_bytes = counted.seconds(now(device) - begun), counted.bytes(stream.cache)
        begun = now(device)
        for _ in range(tokens):
            logits = stream.read(logits.argmax(dim=-1, keepdim=True))
        decode = counted.seconds(now(device) - begun) / tokens
        peak = torch.cuda.max_memory_allocated(device) - others if device.type == "cuda" else None
        return Run(prefill, decode, prefill_bytes, counted.bytes(stream.cache), peak)


def run_pairs(
    subject: Subject,
    dense: Subject,
    prompt: Int[Tensor, "batch length"],
    runs: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Run], list[Run]]:
    """Runs of the subject and of the dense model, by turns, after one pair that is not counted.

    A model that takes seconds for a run is warmed up with the prompt's beginning instead (`_warm_up`), and three pairs
    of it are enough where the spread of both ratios is at most 5%: what disturbs short runs is little of a long one.
    Whoever asks for more than five pairs gets them all. `Speed.runs` says how many there were, and `Speed.held` what
    their interval then promises.

    The two of a pair see the same state of the machine, and which goes first alternates, so that neither what slows
    the machine for a while nor what the first leaves behind falls on one of them alone.

    While the spread of the decode ratios is above 5%, more pairs follow those asked for: up to four times as many in
    all, for at most two seconds.

    Args:
        subject, dense: what is timed.
        prompt: what is read.
        runs: pairs of runs.
        progress: called after each run with the runs that are done and those that are planned.
    """
    told, taken = progress or (lambda done, total: None), 0
    told(0, 2 * runs)
    is_long = _warm_up(subject, dense, prompt)
    told(0, 2 * runs)  # an estimate begins to count here
    mine: list[Run] = []
    others: list[Run] = []
    patience = 0.0
    for pair in range(1, PATIENCE * runs + 1):
        turns = [(subject, mine), (dense, others)]
        for who, found in turns if pair % 2 else reversed(turns):
            found.append(run_once(who, prompt))
            taken += 1
            if taken < 2 * pair:
                told(taken, 2 * max(runs, pair))
        if pair == runs:
            patience = time.perf_counter() + LONGER
        now_known = speed(mine, others)
        over = pair >= runs and (time.perf_counter() >= patience or now_known.spread <= CLEAR)
        if is_long and ENOUGH <= pair < runs <= RUNS:
            over = max(now_known.spread, now_known.prefill_spread) <= CLEAR
        told(taken, taken if over else 2 * min(max(runs, pair + 1), PATIENCE * runs))
        if over:
            break
    return mine, others


def _warm_up(subject: Subject, dense: Subject, prompt: Int[Tensor, "batch length"]) -> bool:
    """One run of each that is not counted, so that no counted one pays for what a first call does once.

    Returns whether a run takes seconds, as far as the prompt's first tokens tell.

    Where reading the prompt takes seconds, its first tokens warm up as well as all of it: what a first call costs is a
    fraction of a second, whatever the length. A recipe that cannot read so few tokens reads all of them.
    """
    short, is_long = prompt[:, :SHORT], False
    if prompt.shape[1] >= 4 * SHORT:
        run_once(dense, short)
        brief = run_once(dense, short)
        is_long = brief.prefill * prompt.shape[1] / SHORT + brief.decode * DECODED > LONG
    if is_long:
        with suppress(PithError):
            run_once(subject, short)
            return True
    run_once(dense, prompt)
    run_once(subject, prompt)
    return is_long


def speed(mine: Sequence[Run], dense: Sequence[Run]) -> Speed:
    """The medians of pairs of runs."""
    decode, spread = ratio_of([m.decode for m in mine], [d.decode for d in dense])
    prefill, prefill_spread = ratio_of([m.prefill for m in mine], [d.prefill for d in dense])
    return Speed(
        prefill=median(m.prefill for m in mine),
        dense_prefill=median(d.prefill for d in dense),
        prefill_ratio=prefill,
        decode=median(m.decode for m in mine),
        dense_decode=median(d.decode for d in dense),
        decode_ratio=decode,
        spread=spread,
        runs=len(mine),
        prefill_spread=prefill_spread,
    )


def ratio_of(mine: Sequence[float], dense: Sequence[float]) -> tuple[float, float]:
    """The median ratio of pairs, and its spread as `Speed` means it."""
    ratios = sorted(m / d for m, d in zip(mine, dense, strict=True))
    middle, k = median(ratios), outermost(len(ratios))
    return middle, max(middle - ratios[k], ratios[-1 - k] - middle) / middle


def timed_prompt(tokenizer: Any, length: int, seed: int) -> Int[Tensor, "1 length"]:
    """`length` tokens of the held-out text from a random place on, wrapped round its end, begun as a sequence is."""
    begin, text = beginning(tokenizer), tokens_of(tokenizer, heldout_text())
    start = Random(seed).randrange(len(text))
    row = [*begin, *(text[(start + i) % len(text)] for i in range(length))][:length]
    return torch.tensor([row])


def now(device: torch.device) -> float:
    """The clock, once the device has done what it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
