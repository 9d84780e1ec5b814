"""Which methods would help a model on this machine: predicted in less than a minute, and checked where asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from operator import attrgetter
from statistics import median
from typing import Any

from pith.core import InputError, Recipe
from pith.core.notes import noted
from pith.measure import Progress, costs
from pith.measure.cost import claimed
from pith.measure.environment import environment
from pith.measure.machine import copy_bandwidth, matrix_throughput
from pith.measure.seconds import DECODED, Run
from pith.measure.traffic import weights_read
from pith.models import Loaded, require_positions
from pith.predict.advice import Advice, Check, Forecast, Machine, Predicted
from pith.predict.growth import Growth
from pith.predict.probe import Found, Prober, probe_all

NOT_PREDICTED = "it changes weights, which takes longer than a prediction may; pith compare measures it"
"""Why no recipe is predicted that changes weights."""

PREFILL, DECODE, BYTES = (1, 2, 0), (0, 1), (1, 0)
"""The powers of the length that each cost is a sum of; the first alone where one length was timed."""


def advise(
    loaded: Loaded,
    recipes: Sequence[Recipe],
    lengths: Sequence[int],
    *,
    batch: int = 1,
    seconds: float = 50.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Advice:
    """Predicts bytes and seconds of recipes for a model on this machine.

    A few layers of the model itself (`pith.measure.sample`) run with and without each recipe, by turns, at short
    lengths and at as many of those asked for as the time allows. A longer length follows from the shorter ones:
    prefill grows as c0 + c1 n + c2 n^2, decoding as d0 + d1 n, and bytes as the methods claim.

    Args:
        loaded: the model.
        recipes: what is predicted; a recipe without a method is passed over, one that changes weights refused.
        lengths: tokens of the prompts.
        batch: sequences that are read at once.
        seconds: how long it may take; divided between the recipes.
        seed: of the prompts.
        progress: told how it goes on.

    Raises:
        InputError: a number makes no sense, or a length is too long for the model.
    """
    begun = time.perf_counter()
    lengths, model = _checked(loaded, lengths, batch, seconds), loaded.model
    copy, matrix = copy_bandwidth(model.device), matrix_throughput(model.dtype, model.device)
    prober = Prober(loaded, batch, lengths, seed)
    wanted = [recipe for recipe in recipes if len(recipe) and not len(recipe.weights)]
    changing = {str(recipe): NOT_PREDICTED for recipe in recipes if len(recipe.weights)}
    with noted() as notes:
        left = seconds - (time.perf_counter() - begun)
        found, refused, late = probe_all(prober, wanted, left, progress)
    dense = _Dense(prober.dense)
    predicted = [
        _predicted(loaded, recipe, found[str(recipe)], dense, lengths, batch)
        for recipe in wanted
        if str(recipe) in found
    ]
    of = model.config.get_text_config(decoder=True).num_hidden_layers
    return Advice(
        model=loaded.name,
        batch=batch,
        lengths=lengths,
        machine=Machine(copy, matrix, _overhead(model, dense.at(min(prober.dense)), copy)),
        dense=Predicted(str(Recipe()), tuple(map(dense.at, lengths)), sum(map(len, prober.dense.values()))),
        predicted=tuple(sorted(predicted, key=lambda p: p.forecasts[-1].decode)),
        refused=refused | changing,
        late=late,
        layers=len(prober.sample.stands_for) or of,
        of=of,
        seconds=time.perf_counter() - begun,
        notes=tuple(notes),
        environment=environment(model, {"seed": seed, "batch": batch, "seconds": seconds}, loaded.dtype_reason),
    )


def _overhead(model: Any, shortest: Forecast, copy: float) -> float | None:
    """What a step takes beyond reading the weights; see `Machine`."""
    read = weights_read(model)
    return None if read is None else max(0.0, shortest.decode - read / copy)


def verify(
    loaded: Loaded, advice: Advice, *, runs: int = 3, seed: int = 0, progress: Progress | None = None
) -> tuple[Check, ...]:
    """Measures on the whole model what was predicted, at every length.

    Args:
        loaded: the model.
        advice: what was predicted, for one sequence.
        runs: pairs of timed runs.
        seed: of the timed prompts.
        progress: told how it goes on.

    Raises:
        InputError: the advice is for several sequences at once; a measurement is of one.
    """
    if advice.batch != 1:
        raise InputError(f"batch={advice.batch} cannot be verified; measurements are of one sequence, so allowed is 1")
    wanted = [(one, forecast) for one in (advice.dense, *advice.predicted) for forecast in one.forecasts]
    checks = []
    for done, (one, forecast) in enumerate(wanted):
        taken = costs(loaded, Recipe.parse(one.recipe), length=forecast.length, runs=runs, seed=seed)
        speed, held = taken.speed, taken.bytes
        assert speed is not None, "runs are timed here"
        measured = Forecast(
            forecast.length, held.prefill, speed.prefill, speed.decode, held.measured, speed.prefill_ratio,
            speed.decode_ratio,
        )  # fmt: skip
        checks.append(Check(one.recipe, forecast, measured))
        if progress:
            progress(f"{one.recipe} at {forecast.length} tokens", done + 1, len(wanted))
    return tuple(checks)


class _Dense:
    """The dense model at any length.

    Args:
        runs: its runs at some lengths.
    """

    def __init__(self, runs: Mapping[int, Sequence[Run]]) -> None:
        self._timed = set(runs)
        self._growth = {
            name: Growth({n: float(median(map(attrgetter(name), some))) for n, some in runs.items()}, powers)
            for name, powers in {"prefill": PREFILL, "decode": DECODE, "prefill_bytes": BYTES}.items()
        }

    def at(self, length: int) -> Forecast:
        """What it costs."""
        held, prefill, decode = (self._growth[name].at(length) for name in ("prefill_bytes", "prefill", "decode"))
        return Forecast(length, round(held), prefill, decode, timed=length in self._timed)


def _predicted(
    loaded: Loaded, recipe: Recipe, found: Found, dense: _Dense, lengths: Sequence[int], batch: int
) -> Predicted:
    """A recipe at each length, from its ratios to dense where it was timed."""
    ratios = {name: found.ratios(attrgetter(name)) for name in ("prefill", "decode", "prefill_bytes")}
    longest = max(found.pairs)

    def grown(name: str, powers: Sequence[int], length: int) -> float:
        known = {n: ratio * getattr(dense.at(n), name) for n, ratio in ratios[name].items()}
        if length not in known and len(known) == 1:
            return float(getattr(dense.at(length), name)) * ratios[name][longest]
        return Growth(known, powers).at(length)

    def share(length: int) -> float:
        if length in found.pairs:
            return ratios["prefill_bytes"][length]
        says = {n: claimed(loaded.model, recipe, n, dense.at(n).bytes // batch) for n in (length, longest)}
        return ratios["prefill_bytes"][longest] * says[length] / says[longest]

    forecasts = []
    for length in lengths:
        whole, part = dense.at(length), share(length)
        prefill, decode = grown("prefill", PREFILL, length), grown("decode", DECODE, length)
        forecasts.append(
            Forecast(
                length, round(part * whole.bytes), prefill, decode, part, prefill / whole.prefill,
                decode / whole.decode, timed=length in found.pairs,
            )
        )  # fmt: skip
    return Predicted(str(recipe), tuple(forecasts), sum(map(len, found.pairs.values())), found.stopped)


def _checked(loaded: Loaded, lengths: Sequence[int], batch: int, seconds: float) -> tuple[int, ...]:
    for name, value in {"batch": batch, "length": min(lengths, default=0)}.items():
        if value < 1:
            raise InputError(f"{name}={value} makes no sense; allowed is 1 or more")
    if not seconds > 0:
        raise InputError(f"seconds={seconds} makes no sense; allowed is more than 0")
    for length in lengths:
        require_positions(loaded.model, length + DECODED, f"a prompt of {length} tokens and {DECODED} decoded ones")
    return tuple(sorted(set(lengths)))
