"""What recipes cost: bytes and seconds, against the dense model in the same rounds of runs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor

from pith.core import DenseCache, InputError, ModelError, PithWarning, Recipe
from pith.core.notes import noted
from pith.measure.bytes import cache_bytes
from pith.measure.crowding import Crowding
from pith.measure.environment import environment
from pith.measure.measurement import CacheBytes, Costs
from pith.measure.memory import memory
from pith.measure.seconds import DECODED, RUNS, Run, Turn, run_once, run_rounds, speed, timed_prompt
from pith.measure.traffic import bandwidth
from pith.models import Loaded, Subject, require_positions
from pith.models.smaller import subject

_FEW = 8
"""Tokens of a text that shows what a cache holds for each."""

_DENSE: WeakKeyDictionary[Any, dict[tuple[int, ...], Run]] = WeakKeyDictionary()
"""By the dense model, its run of the last prompt that was read for bytes alone."""

SPEED, BYTES = "speed", "bytes"
"""What progress names the timed runs, and the runs that are made for bytes alone."""

Progress = Callable[[str, int, int], None]
"""Told what is measured, `SPEED`, `BYTES` or a task's text, how much of it is done, and of how much."""


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
    """Bytes and seconds of a recipe against the dense model, in this process; as `costs_together` of it alone.

    Raises, besides:
        ModelError: a method cannot take the model.
    """
    [found] = costs_together(
        loaded, [recipe], length=length, runs=runs, seed=seed, peak=peak, progress=progress
    ).values()  # fmt: skip
    if isinstance(found, ModelError):
        raise found
    return found


def costs_together(
    loaded: Loaded,
    recipes: Sequence[Recipe],
    *,
    length: int = 1024,
    runs: int = RUNS,
    seed: int = 0,
    peak: bool = False,
    progress: Progress | None = None,
) -> dict[str, Costs | ModelError]:
    """Bytes and seconds of recipes against the dense model, in this process, by the recipes' texts.

    They are timed in rounds: each of them once, and the dense model once for all (see `run_rounds`). One that cannot be
    applied to the model has its error in the place of its costs.

    The recipe without a method is measured as the model in plain Transformers; its ratios, of the model against
    itself, say how far the machine's noise reaches.

    Args:
        loaded: the model.
        recipes: different recipes; they are in memory at the same time, with the weights that they change.
        length: tokens of the prompt that is timed and whose cache is weighed; one sequence.
        runs: rounds of timed runs; where ratios lie far apart, more are taken. With 0 nothing is
            timed: one run of each shows the bytes.
        seed: of the timed prompt; tasks have their own.
        peak: whether to look for the peak of memory on the processor too, which takes two fresh processes; an
            accelerator's allocator counts it anyway.
        progress: told how it goes on; first how weights are changed, where they are.

    Raises:
        InputError: a number makes no sense, the prompt is too long for the model, or calibration texts are missing.
    """
    for name, value, least in (("length", length, 1), ("runs", runs, 0)):
        if value < least:
            raise InputError(f"{name}={value} makes no sense; allowed is {least} or more")
    require_positions(loaded.model, length + DECODED, f"a timed prompt of {length} tokens and {DECODED} decoded ones")
    prompt = timed_prompt(loaded.tokenizer, length, seed).to(loaded.model.device)
    found: dict[str, Costs | ModelError] = {}
    examined: list[_Examined] = []
    for recipe in recipes:
        try:
            examined.append(_Examined(loaded, recipe, progress))
        except ModelError as error:  # methods cannot change its weights
            found[str(recipe)] = error
    plain, crowding = Subject(loaded.model, loaded.tokenizer), Crowding()
    if runs and examined:
        with crowding.watched():
            run_rounds(examined, plain, prompt, runs, told_of(progress, SPEED))
    else:
        _run_untimed(examined, plain, prompt, told_of(progress, BYTES))
    reason = crowding.reason if runs and prompt.device.type == "cpu" else ""
    asked = (length, seed) if peak else None
    where = {"seed": seed, "length": length, "decoded": DECODED, "runs": runs}
    for one in examined:
        found[str(one.recipe)] = one.error or _costs(loaded, one, length, reason, asked, where)
    return found


class _Examined(Turn):
    """A recipe whose runs are taken, and what is warned of meanwhile.

    Attributes:
        recipe: the recipe.
        notes: the texts of warnings.
    """

    def __init__(self, loaded: Loaded, recipe: Recipe, progress: Progress | None) -> None:
        self.recipe = recipe
        self.notes: list[str] = []
        with self.noting():
            super().__init__(subject(loaded, recipe, progress))

    def take(self, prompt: Int[Tensor, "batch length"]) -> Run | None:
        """A run; None if it cannot be, with the error kept."""
        with self.noting():
            return super().take(prompt)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Keep what is warned of inside."""
        with noted() as notes:
            yield
        self.notes += [note for note in notes if note not in self.notes]


def _costs(
    loaded: Loaded,
    one: _Examined,
    length: int,
    reason: str,
    asked: tuple[int, int] | None,
    where: dict[str, Any],
) -> Costs:
    """The costs of a recipe whose runs were taken; with no time where `where` has no runs."""
    model = one.subject.model
    with one.noting():
        if reason:
            warnings.warn(reason, PithWarning, stacklevel=2)
        needed = memory(loaded, model, one.recipe, (one.mine, one.dense), asked)
    times = replace(speed(one.mine, one.dense), crowded=bool(reason)) if where["runs"] else None
    return Costs(
        bytes=_weighed(loaded, model, one.recipe, (one.mine[0], one.dense[0]), length),
        speed=times,
        memory=needed,
        bandwidth=bandwidth(model, one.recipe, one.mine[0], times.decode) if times else None,
        notes=tuple(one.notes),
        environment=environment(loaded.model, where, loaded.dtype_reason),
    )


def _run_untimed(
    examined: Sequence[_Examined], plain: Subject, prompt: Int[Tensor, "1 length"], told: Callable[[int, int], None]
) -> None:
    """Take one run of each, for its bytes; the dense model's is made once for a prompt."""
    told(0, 2 * len(examined))
    known = _DENSE.setdefault(plain.model, {})
    asked = tuple(prompt[0].tolist())
    if asked not in known:
        known.clear()
        known[asked] = run_once(plain, prompt)
    dense = known[asked]
    for done, one in enumerate(examined, 1):
        told(2 * done - 1, 2 * len(examined))
        is_dense = one.subject.recipe is None and one.subject.model is plain.model
        if (mine := dense if is_dense else one.take(prompt)) is not None:
            one.add(mine, dense)
        told(2 * done, 2 * len(examined))


def told_of(progress: Progress | None, what: str) -> Callable[[int, int], None]:
    """Return what is told of one thing that is measured."""
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
