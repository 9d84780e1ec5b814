"""Taking one measurement, piece by piece."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor

from pith.core import DenseCache, InputError, PithWarning, Recipe
from pith.core.notes import noted
from pith.measure.bytes import cache_bytes
from pith.measure.crowding import Crowding
from pith.measure.environment import environment
from pith.measure.measurement import Answer, CacheBytes, Costs, Measurement
from pith.measure.memory import memory
from pith.measure.seconds import DECODED, RUNS, Run, run_once, run_pairs, speed, timed_prompt
from pith.measure.traffic import bandwidth
from pith.models import Loaded, Subject, require_positions
from pith.models.smaller import subject
from pith.tasks import Quality, Task
from pith.tasks.early import Early

_FEW = 8
"""Tokens of a text that shows what a cache holds for each."""

_DENSE: WeakKeyDictionary[Any, dict[tuple[int, ...], Run]] = WeakKeyDictionary()
"""By the dense model, its run of the last prompt that was read for bytes alone."""

SPEED, BYTES = "speed", "bytes"
"""What progress names the timed runs, and the runs that are made for bytes alone."""

Progress = Callable[[str, int, int], None]
"""Told what is measured, `SPEED`, `BYTES` or a task's text, how much of it is done, and of how much."""


def measure(
    loaded: Loaded,
    recipe: Recipe,
    tasks: Sequence[Task] = (),
    *,
    length: int = 1024,
    batch_size: int = 8,
    runs: int = RUNS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measurement:
    """Measures what a recipe does to a model: its costs and, by every task, its quality.

    Args, raises: as of `costs` and `answer`.
    """
    found = costs(loaded, recipe, length=length, runs=runs, seed=seed, progress=progress)
    answers = {str(task): answer(loaded, recipe, task, batch_size=batch_size, progress=progress) for task in tasks}
    return Measurement(loaded.name, str(recipe), found, answers)


def costs(
    loaded: Loaded,
    recipe: Recipe,
    *,
    length: int = 1024,
    runs: int = RUNS,
    seed: int = 0,
    peak: bool = False,
    progress: Progress | None = None,
) -> Costs:
    """Bytes and seconds of a recipe against the dense model, in this process.

    The recipe without a method is measured as the model in plain Transformers; its ratios, of the model against
    itself, say how far the machine's noise reaches.

    Args:
        loaded: the model.
        recipe: the recipe.
        length: tokens of the prompt that is timed and whose cache is weighed; one sequence.
        runs: pairs of timed runs; where their ratios lie far apart, more are taken (see `run_pairs`). With 0 nothing is
            timed: one run of each shows the bytes.
        seed: of the timed prompt; tasks have their own.
        peak: whether to look for the peak of memory on the processor too, which takes two fresh processes; an
            accelerator's allocator counts it anyway.
        progress: told how it goes on; first how weights are changed, where they are.

    Raises:
        InputError: a number makes no sense, the prompt is too long for the model, or calibration texts are missing.
        ModelError: a method cannot take the model.
    """
    for name, value, least in (("length", length, 1), ("runs", runs, 0)):
        if value < least:
            raise InputError(f"{name}={value} makes no sense; allowed is {least} or more")
    require_positions(loaded.model, length + DECODED, f"a timed prompt of {length} tokens and {DECODED} decoded ones")
    crowding = Crowding()
    with noted() as notes:
        prompt = timed_prompt(loaded.tokenizer, length, seed).to(loaded.model.device)
        examined, plain = subject(loaded, recipe, progress), Subject(loaded.model, loaded.tokenizer)
        if runs:
            with crowding.watched():
                mine, dense = run_pairs(examined, plain, prompt, runs, _told(progress, SPEED))
        else:
            mine, dense = _untimed(examined, plain, prompt, _told(progress, BYTES))
        reason = crowding.reason if runs and prompt.device.type == "cpu" else ""
        if reason:
            warnings.warn(reason, PithWarning, stacklevel=2)
        needed = memory(loaded, examined.model, recipe, (mine, dense), (length, seed) if peak else None)
    times = replace(speed(mine, dense), crowded=bool(reason)) if runs else None
    return Costs(
        bytes=_weighed(loaded, examined.model, recipe, (mine[0], dense[0]), length),
        speed=times,
        memory=needed,
        bandwidth=bandwidth(examined.model, recipe, mine[0], times.decode) if times else None,
        notes=tuple(notes),
        environment=environment(
            loaded.model, {"seed": seed, "length": length, "decoded": DECODED, "runs": runs}, loaded.dtype_reason
        ),
    )  # fmt: skip


def _untimed(
    examined: Subject, plain: Subject, prompt: Int[Tensor, "1 length"], told: Callable[[int, int], None]
) -> tuple[list[Run], list[Run]]:
    """Return one run of each, for its bytes; the dense model's is made once for a prompt."""
    told(0, 2)
    known = _DENSE.setdefault(plain.model, {})
    asked = tuple(prompt[0].tolist())
    if asked not in known:
        known.clear()
        known[asked] = run_once(plain, prompt)
    dense = known[asked]
    told(1, 2)
    is_dense = examined.recipe is None and examined.model is plain.model
    mine = dense if is_dense else run_once(examined, prompt)
    told(2, 2)
    return [mine], [dense]


def answer(
    loaded: Loaded,
    recipe: Recipe,
    task: Task,
    *,
    batch_size: int = 8,
    progress: Progress | None = None,
    early: Callable[[Quality, int], None] | None = None,
) -> Answer:
    """What a task finds of a recipe.

    Args:
        loaded: the model.
        recipe: the recipe.
        task: how quality is measured.
        batch_size: sequences that the task reads at once; no score depends on it.
        progress: told how it goes on.
        early: given the score of the first few examples, and how many there are in all, while the others are still to
            come; not called where there are only a few.

    Raises:
        InputError: the batch size makes no sense, or the task is too long for the model.
        ModelError: a method cannot take the model.
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} makes no sense; allowed is 1 or more")
    told = _told(progress, str(task))
    with noted() as notes:
        examined = subject(loaded, recipe, progress)
        told(0, getattr(task, "count", None) or 1)  # it is in hand, long before its first examples are done
        quality = task.run(examined, batch_size, Early(told, early) if early else told)
    return Answer(quality, tuple(notes), environment(loaded.model, {"batch_size": batch_size}, loaded.dtype_reason))


def _told(progress: Progress | None, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total) if progress else None


def claimed(model: Any, recipe: Recipe, tokens: int, dense_bytes: int) -> float:
    """The share of the dense cache that a recipe says it holds after a prompt.

    Args:
        model: the model.
        recipe: the recipe.
        tokens: the prompt's length.
        dense_bytes: what the dense cache of one such prompt holds.
    """
    config = model.config.get_text_config(decoder=True)
    whole = DenseCache(
        tokens=tokens,
        token_bytes=dense_bytes // tokens,
        layers=config.num_hidden_layers,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        number_bytes=model.dtype.itemsize,
    )
    return math.prod((method.claimed(whole) for method in recipe), start=1.0)


def _weighed(loaded: Loaded, model: Any, recipe: Recipe, runs: tuple[Run, Run], tokens: int) -> CacheBytes:
    mine, dense = runs
    left = _left(model, loaded.model) if len(recipe.weights) else 1.0
    return CacheBytes(
        prefill=mine.prefill_bytes,
        dense_prefill=dense.prefill_bytes,
        decoded=mine.decoded_bytes,
        dense_decoded=dense.decoded_bytes,
        tokens=tokens,
        claimed=left * claimed(model, recipe.rest, tokens, round(left * dense.prefill_bytes)),
    )


def _left(model: Any, dense: Any) -> float:
    """The share of the dense model's cache that a model with other weights has in plain Transformers."""
    few = torch.zeros(1, _FEW, dtype=torch.int64, device=dense.device)
    with torch.no_grad():
        held = [cache_bytes(one(input_ids=few, use_cache=True).past_key_values) for one in (model, dense)]
    return held[0] / held[1]
