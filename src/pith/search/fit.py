"""`pith fit`: the recipe that meets limits of memory, quality and time, found by a search and measured afresh."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from pith.core import Recipe
from pith.core.words import bytes_
from pith.measure import Measurement
from pith.measure.seconds import RUNS
from pith.models import Loaded
from pith.models.smaller import reads_texts
from pith.search.aim import Aim
from pith.search.kept import kept
from pith.search.loop import Search, SearchWatch, changed
from pith.search.sought import Reached, Sought, Tried
from pith.study.compare import Study, Watch, compare
from pith.study.here import Here
from pith.study.question import ask
from pith.study.store import Store
from pith.tasks import Task
from pith.weights import Source

FRESH = 6
"""So many recipes of the front, the best ones, are measured afresh."""

PROMPT = "The import statement"
"""What the command that uses the recipe goes on with."""


class FitWatch(SearchWatch, Watch, Protocol):
    """Told how the search goes on, and then how its best recipes are measured afresh."""

    def measures(self, recipes: int) -> None:
        """The search is over; so many recipes, the dense model among them, are measured afresh."""


def fit(
    loaded: Loaded,
    aim: Aim,
    store: Store,
    watch: FitWatch,
    *,
    trials: int = 60,
    minutes: float | None = None,
    runs: int = RUNS,
) -> tuple[Study, Sought]:
    """Searches registered methods for the recipe that meets limits.

    Methods that change weights are among them where `aim` names them, or allows less memory than the dense model takes;
    those that train or search for long only where they are named.

    Memory is the bytes of the weights and of the caches of all sequences after a prompt and its decoded tokens; quality
    is the lowest share, over the tasks, of the dense model's score that is kept (`kept`); latency is a decoded token's
    time, ratio to dense. A trial is given up as soon as it cannot meet a limit any more: bytes first, then few examples
    whose paired interval lies below the limit, then time. Of what was measured to the end, those recipes to which no
    other is equal in all three and better in one are the front; its best are measured afresh with other seeds, and
    only the fresh numbers decide. Killed at any moment and called again, it goes on.

    Args:
        loaded: the model.
        aim: what is searched for.
        store: keeps everything.
        watch: told how it goes on.
        trials: recipes to try, those of earlier runs counted.
        minutes: after so many the search ends; measuring afresh follows.
        runs: pairs of timed runs of each recipe that is measured afresh.

    Returns:
        The fresh comparison, the dense model first, and the search's outcome.

    Raises:
        InputError: the aim makes no sense.
        StoreError: the database cannot be read or written.
        ModelError: the dense model cannot be measured.
    """
    search = Search(loaded, aim, store, watch)
    suffices = not any(aim.misses(search.dense_memory, 1.0, 1.0))
    tried = () if suffices else with_front(search.run(trials, minutes))
    tasks = tuple(held_out(task) for task in aim.tasks)
    recipes = (Recipe(), *(Recipe.parse(t.recipe) for t in finalists(tried, aim)))
    question = ask(loaded, recipes, tasks, length=aim.length, seed=aim.seed + 1, runs=runs)
    watch.measures(len(recipes))
    measurer = Here(loaded, aim.length, aim.batch_size, aim.seed + 1, watch.progress, runs)
    study = compare(question, store, measurer, watch)
    return study, _outcome(loaded, aim, study, search.dense_memory, tried)


def held_out(task: Task) -> Task:
    """The task with examples that the search has not seen; one without a seed has no others."""
    return changed(task, "seed", lambda seed: seed + 1)


def with_front(tried: Sequence[Tried]) -> tuple[Tried, ...]:
    """Marks those that were measured to the end, and to which no other is equal in all three and better in one."""
    done = [_costs(t) for t in tried if t.given_up is None]

    def beaten(mine: tuple[float, ...]) -> bool:
        return any(other != mine and all(o <= m for o, m in zip(other, mine, strict=True)) for other in done)

    return tuple(replace(t, on_front=t.given_up is None and not beaten(_costs(t))) for t in tried)


def finalists(tried: Sequence[Tried], aim: Aim) -> list[Tried]:
    """What is measured afresh: of the front those that meet the limits, the best first; then those that come nearest.

    Where nothing was measured to the end it is what came nearest before it was given up.
    """

    def rank(one: Tried) -> tuple[float, ...]:
        return preference(aim, one.memory, one.quality, one.latency)

    front = [t for t in tried if t.on_front]
    if not front:  # nearest are those that came farthest
        reached = [t for t in tried if t.memory is not None]
        return sorted(reached, key=lambda t: (t.quality is None, t.latency is None, rank(t)))[: FRESH // 2]
    return sorted(front, key=rank)[:FRESH]


def preference(aim: Aim, memory: float | None, quality: float | None, latency: float | None) -> tuple[float, ...]:
    """What comes first of two recipes: the one that misses less, keeps more, is faster, is smaller; least is best.

    Quality counts in whole hundredths, and no more than the dense model's: so few examples tell nothing finer, and
    nobody would wait for it.
    """
    missed = max(aim.misses(memory, quality, latency))
    return missed, -round(min(quality or 0.0, 1.0), 2), latency or 0.0, memory or 0.0


def reached(found: Measurement, dense: Measurement, study: Study, aim: Aim) -> Reached:
    """What a recipe reaches on fresh numbers."""
    held = found.bytes
    memory = found.costs.memory.weights + aim.batch * max(held.prefill, held.decoded)
    quality = min(
        kept(task, found.quality[str(task)], dense.quality[str(task)], study.calibrations[str(task)])
        for task in study.question.tasks
    )
    assert found.speed is not None, "what a search ends with is timed"
    return Reached(memory, quality, found.speed.decode_ratio)


def misses_in_words(aim: Aim, found: Reached) -> str:
    """What a recipe misses; empty where it meets all limits."""
    memory, quality, latency = aim.misses(found.memory, found.quality, found.latency)
    parts = []
    if memory and aim.memory is not None:
        parts.append(f"it takes {bytes_(found.memory)} where {bytes_(aim.memory)} are allowed")
    if quality:
        parts.append(f"it keeps {found.quality:.3f} of the quality where {aim.quality:g} is asked for")
    if latency:
        parts.append(
            f"a decoded token takes {found.latency:.2f}x the dense model's time where {aim.latency:g}x is allowed"
        )
    return "; ".join(parts)


def _outcome(loaded: Loaded, aim: Aim, study: Study, dense_memory: int, tried: tuple[Tried, ...]) -> Sought:
    dense = study.measurements[str(Recipe())]
    fresh = {text: reached(m, dense, study, aim) for text, m in study.measurements.items()}
    # the dense model is what the others are held against: its ratio to itself is noise
    fresh[str(Recipe())] = replace(fresh[str(Recipe())], quality=1.0, latency=1.0)
    missed = {text: aim.misses(r.memory, r.quality, r.latency) for text, r in fresh.items()}
    # a limit that the dense model misses is what the search was for: it is named where nothing else was measured
    others = [text for text in fresh if text != str(Recipe()) or not any(missed[text])] or list(fresh)
    best = min(others, key=lambda t: preference(aim, fresh[t].memory, fresh[t].quality, fresh[t].latency))
    return Sought(
        memory=aim.memory,
        quality=aim.quality,
        latency=aim.latency,
        dense_memory=dense_memory,
        tried=tried,
        found=None if any(missed[best]) else best,
        nearest=best,
        misses=misses_in_words(aim, fresh[best]),
        command=shlex.join(["pith", "generate", loaded.name, PROMPT, "--recipe", best, *_texts(loaded, best)]),
        reached=fresh[best],
    )


def _texts(loaded: Loaded, recipe: str) -> list[str]:
    """The options that name calibration texts, where a recipe reads some and they are not the usual ones."""
    if not reads_texts(Recipe.parse(recipe)):
        return []
    named = {"calibration": "text", "calibration-sequences": "sequences", "calibration-length": "length"}
    given = {option: getattr(loaded.source, name) for option, name in named.items()}
    usual = {option: getattr(Source(), name) for option, name in named.items()}
    return [word for option in named if given[option] != usual[option] for word in (f"--{option}", str(given[option]))]


def _costs(tried: Tried) -> tuple[float, ...]:
    assert tried.memory is not None
    assert tried.quality is not None
    assert tried.latency is not None
    return tried.memory, -tried.quality, tried.latency
