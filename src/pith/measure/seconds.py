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

from pith.core import ModelError, PithError
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


class Turn:
    """A subject that is timed beside the dense model.

    Attributes:
        subject: what is timed.
        mine, dense: its runs and the dense model's of the same rounds.
        error: why it cannot be run; None where it can.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.mine: list[Run] = []
        self.dense: list[Run] = []
        self.error: ModelError | None = None

    def take(self, prompt: Int[Tensor, "batch length"]) -> Run | None:
        """Take a run; None if it cannot be, with the error kept."""
        try:
            return run_once(self.subject, prompt)
        except ModelError as error:
            self.error = error
            return None

    def add(self, mine: Run, dense: Run) -> None:
        """Keep the two runs of a round."""
        self.mine.append(mine)
        self.dense.append(dense)


def run_pairs(
    subject: Subject,
    dense: Subject,
    prompt: Int[Tensor, "batch length"],
    runs: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Run], list[Run]]:
    """Runs of the subject and of the dense model, by turns: `run_rounds` of one subject.

    Raises:
        ModelError: the subject's recipe cannot take the model.
    """
    turn = Turn(subject)
    run_rounds([turn], dense, prompt, runs, progress)
    if turn.error:
        raise turn.error
    return turn.mine, turn.dense


def run_rounds(
    turns: Sequence[Turn],
    dense: Subject,
    prompt: Int[Tensor, "batch length"],
    runs: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Take runs of subjects in rounds, each subject once and the dense model once, after one that is not counted.

    A model that takes seconds for a run is warmed up with the prompt's beginning instead (`_warm_up`), and three rounds
    of it are enough where the spread of both ratios is at most 5%: what disturbs short runs is little of a long one.
    Whoever asks for more than five rounds gets them all. `Speed.runs` says how many there were, and `Speed.held` what
    their interval then promises.

    A subject and the dense model see the same state of the machine in a round: the dense model's run stands in the
    middle of it. The order of each second round is turned round, so that neither what slows the machine for a while nor
    what one run leaves behind always falls on the same of them.

    While the spread of a subject's decode ratios is above 5%, and runs are short, it takes part in more rounds than
    those asked for: in up to four times as many in all, for at most two seconds for each such subject.

    Args:
        turns: what is timed; the runs are added to each.
        dense: the dense model.
        prompt: what is read.
        runs: rounds.
        progress: called after each run with the runs that are done and those that are planned.
    """
    told, taken = progress or (lambda done, total: None), 0
    planned = runs * (len(turns) + 1)
    told(0, planned)
    is_long = _warm_up(turns, dense, prompt)
    told(0, planned)  # an estimate begins to count here
    left, patience = [turn for turn in turns if turn.error is None], 0.0
    for number in range(1, PATIENCE * runs + 1):
        order: list[Turn | None] = [*left]
        order.insert((len(left) + 1) // 2, None)
        found: dict[Turn | None, Run | None] = {}
        for who in order if number % 2 else reversed(order):
            found[who] = run_once(dense, prompt) if who is None else who.take(prompt)
            taken += 1
            if len(found) < len(order):
                told(taken, taken + len(order) - len(found) + len(order) * max(runs - number, 0))
        beside = found[None]
        assert beside is not None
        for turn in left:
            if (mine := found[turn]) is not None:
                turn.add(mine, beside)
        if number == runs:
            patience = time.perf_counter() + LONGER * len(left)
        in_time = not is_long and time.perf_counter() < patience and number < PATIENCE * runs
        left = [turn for turn in left if turn.error is None and not _is_known(turn, runs, is_long, in_time)]
        told(taken, taken + (len(left) + 1) * max(runs - number, 1) if left else taken)
        if not left:
            break


def _is_known(turn: Turn, runs: int, is_long: bool, in_time: bool) -> bool:
    """Return whether a subject needs no more rounds."""
    known, rounds = speed(turn.mine, turn.dense), len(turn.mine)
    if is_long and ENOUGH <= rounds < runs <= RUNS:
        return max(known.spread, known.prefill_spread) <= CLEAR
    return rounds >= runs and (not in_time or known.spread <= CLEAR)


def _warm_up(turns: Sequence[Turn], dense: Subject, prompt: Int[Tensor, "batch length"]) -> bool:
    """Take one run of each that is not counted, so that no counted one pays for what a first call does once.

    Returns whether a run takes seconds, as far as the prompt's first tokens tell.

    Where reading the prompt takes seconds, its first tokens warm up as well as all of it: what a first call costs is a
    fraction of a second, whatever the length. A recipe that cannot read so few tokens reads all of them.
    """
    short, is_long = prompt[:, :SHORT], False
    if prompt.shape[1] >= 4 * SHORT:
        run_once(dense, short)
        brief = run_once(dense, short)
        is_long = brief.prefill * prompt.shape[1] / SHORT + brief.decode * DECODED > LONG
    if not is_long:
        run_once(dense, prompt)
    for turn in turns:
        if is_long:
            with suppress(PithError):
                run_once(turn.subject, short)
                continue
        turn.take(prompt)
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
