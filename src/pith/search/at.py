"""Equal measured budgets: each recipe finds the value of its own parameter that meets a limit of bytes or of time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from pith.core import InputError, PithError, PithWarning, Recipe, written
from pith.core.words import bytes_
from pith.measure import Progress
from pith.measure.seconds import DECODED, run_once, run_pairs, timed_prompt
from pith.models import Loaded, Subject, require_positions
from pith.models.smaller import subject
from pith.search.space import Place, knob

NEAR = 0.99
"""A search over a range ends where so much of a limit of bytes is used."""

PAIRS, FRESH_PAIRS = 5, 9
"""Pairs of timed runs while searching, and those that what was found must pass afresh."""

STEPS, TIMED_STEPS = 20, 6
"""How often a range is narrowed at most: bytes are exact, times are not."""

RETRIES = 3
"""How many further values are timed afresh when the first is too slow."""


def recipes_at(
    loaded: Loaded,
    recipes: Sequence[Recipe],
    *,
    nbytes: int | None = None,
    latency: float | None = None,
    length: int = 1024,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[tuple[Recipe, ...], dict[str, str]]:
    """Recipes whose measured costs meet a limit, each with the least saving value of its knob that does.

    A knob is the first swept parameter of the first method that has one; the value that the text gives it is left, all
    other parameters stay. What a method changes of weights leaves the cache's bytes as they are, so that its knob is
    turned for time alone. A range is narrowed, over bytes until 99 % of the limit are used or three digits are fixed;
    of choices each is tried. The dense model stays as it is, and is the first.

    Args:
        loaded: the model.
        recipes: what is to meet the limit.
        nbytes: the most bytes that the cache may hold after the prompt, for one sequence.
        latency: the most time that a decoded token may take, ratio to dense: the median of interleaved pairs. What the
            search found is timed again with more pairs, and must pass.
        length: tokens of the prompt.
        seed: of the prompt.
        progress: told how it goes on.

    Returns:
        The recipes, each once, and why one cannot meet the limit, by its text as it was given.

    Raises:
        InputError: no limit is given, one makes no sense, or the prompt is too long for the model.
    """
    if nbytes is None and latency is None:
        raise InputError("no budget is given; allowed are bytes, a ratio of times, or both")
    if nbytes is not None and nbytes < 1:
        raise InputError(f"a budget of {nbytes} bytes makes no sense; allowed is 1 or more")
    if latency is not None and not latency > 0:
        raise InputError(f"a decode time of {latency} times the dense model's makes no sense; allowed is more than 0")
    require_positions(loaded.model, length + DECODED, f"a prompt of {length} tokens and {DECODED} decoded ones")
    scales = _Scales(loaded, length, seed, nbytes, latency)
    found, refused = [Recipe()], {}
    for done, recipe in enumerate(recipes):
        if progress:
            progress("meeting the budget", done, len(recipes))
        if not len(recipe):
            continue
        try:
            best = _search(scales, recipe)
        except PithError as error:
            refused[str(recipe)] = str(error)
        else:
            if isinstance(best, Recipe):
                found.append(best)
            else:
                refused[str(recipe)] = best
    if progress:
        progress("meeting the budget", len(recipes), len(recipes))
    return tuple({str(recipe): recipe for recipe in found}.values()), refused


@dataclass
class _Scales:
    """Weighs and times recipes against the limits.

    Attributes:
        loaded, length, seed, nbytes, latency: as of `recipes_at`.
        reached: the last measured costs in words, by the recipe's text.
        used: the share of the bytes that was used, likewise.
    """

    loaded: Loaded
    length: int
    seed: int
    nbytes: int | None
    latency: float | None
    reached: dict[str, str] = field(default_factory=dict)
    used: dict[str, float] = field(default_factory=dict)

    def meet(self, recipe: Recipe, pairs: int = PAIRS) -> bool:
        """Whether a recipe meets the limits; bytes first, which need one prompt."""
        prompt: Any = timed_prompt(self.loaded.tokenizer, self.length, self.seed).to(self.loaded.model.device)
        examined, text = subject(self.loaded, recipe), str(recipe)
        if self.nbytes is not None:
            held = run_once(examined, prompt, tokens=1).prefill_bytes
            self.used[text] = held / self.nbytes
            self.reached[text] = f"holds {bytes_(held)} after a prompt of {self.length} tokens"
            if held > self.nbytes:
                return False
        if self.latency is None:
            return True
        mine, dense = run_pairs(examined, Subject(self.loaded.model, self.loaded.tokenizer), prompt, pairs)
        ratio = median(m.decode / d.decode for m, d in zip(mine, dense, strict=True))
        self.reached[text] = f"takes {ratio:.2f}x the dense model's time for a decoded token"
        return ratio <= self.latency

    def between(self, within: Recipe, over: Recipe) -> float:
        """How far from a recipe that meets the bytes to one that does not the limit lies, if bytes grow evenly."""
        low, high = self.used[str(within)], self.used[str(over)]
        return ((1 + NEAR) / 2 - low) / (high - low)


def _search(scales: _Scales, recipe: Recipe) -> Recipe | str:
    """The recipe with the least saving value of its knob that meets the limits, or why there is none."""
    able = recipe if scales.nbytes is None else recipe.rest
    place, turned = next(
        ((place, method) for method in able if (place := knob(method))), (None, None)
    )  # fmt: skip
    if place is None or turned is None:
        return recipe if scales.meet(recipe) else f"it {scales.reached[str(recipe)]}, and has no parameter to turn"
    if len(recipe) > 1:
        name = ".".join(place.path)
        warnings.warn(
            f"{recipe}: {name} of {turned.name} is turned to meet the budget; all else stays as written",
            PithWarning,
            stacklevel=3,
        )

    def at(value: Any) -> Recipe:
        return Recipe(place.put(method, value) if method is turned else method for method in recipe)

    meeting, least = _meeting(scales, place, at)
    if not meeting:
        return (
            f"it cannot meet the budget: at {place.path[-1]}={written(least)}, where it saves most, it "
            f"{scales.reached[str(at(least))]}"
        )
    if scales.latency is None:
        return at(meeting[0])
    for value in meeting[: 1 + RETRIES]:
        if scales.meet(at(value), FRESH_PAIRS):
            return at(value)
    return f"it met the budget while searching and not afresh: it {scales.reached[str(at(value))]}"


def _meeting(scales: _Scales, place: Place, at: Callable[[Any], Recipe]) -> tuple[list[Any], Any]:
    """The values that were seen to meet the limits, the least saving one first; and the value that saves most."""
    if not place.parameter.is_range:
        possible = list(_possible(place.parameter.sweep, at))
        if not possible:
            return [], place.parameter.sweep[0]  # whose refusal says why
        return [value for value in reversed(possible) if scales.meet(at(value))], possible[0]
    most, least = place.parameter.sweep
    if not scales.meet(at(most)):
        return [], most
    if scales.meet(at(least)):
        return [least, most], most
    meeting = [most]
    for step in range(STEPS if scales.latency is None else TIMED_STEPS):
        share = 0.5 if scales.latency is not None or step % 3 == 2 else scales.between(at(meeting[-1]), at(least))
        middle = place.round(meeting[-1] + share * (least - meeting[-1]))
        if middle in (meeting[-1], least):
            middle = place.round((meeting[-1] + least) / 2)
        if middle in (meeting[-1], least):
            break
        if scales.meet(at(middle)):
            meeting.append(middle)
            if scales.latency is None and scales.used[str(at(middle))] >= NEAR:
                break
        else:
            least = middle
    return meeting[::-1], most


def _possible(values: Sequence[Any], at: Callable[[Any], Recipe]) -> Iterator[Any]:
    """The choices that the other parameters allow."""
    for value in values:
        try:
            at(value)
        except PithError:
            continue
        yield value
