"""The most memory that reading a prompt and going on from it takes."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pith.core import ModelError, PithWarning, Recipe
from pith.measure.measurement import Memory
from pith.measure.seconds import Run
from pith.models import Loaded
from pith.models.smaller import folder_of, save
from pith.weights.size import weight_bytes

CHILD = "pith.measure.peak"
"""The program that runs in the fresh process."""


def memory(
    loaded: Loaded, model: Any, recipe: Recipe, runs: tuple[Sequence[Run], Sequence[Run]], asked: tuple[int, int] | None
) -> Memory:
    """What a recipe and the dense model need.

    Where the device has an allocator that counts, its peak over the runs that were timed. On the processor a process
    holds what it once got, so that a peak seen in this one would be that of what ran before: there each is looked at in
    a process of its own, which takes as long as loading the model twice.

    Args:
        loaded: the model.
        model: the one with the recipe's weights.
        recipe: the recipe.
        runs: the timed runs of the recipe and of the dense model.
        asked: the prompt's length and seed, where the processor's peaks are wanted too.
    """
    dense_weights = weight_bytes(loaded.model) if len(recipe.weights) else None
    held = partial(Memory, weight_bytes(model), dense_weights=dense_weights)
    device = torch.device(loaded.model.device)
    if device.type != "cpu":
        mine, dense = ([run.peak for run in some if run.peak is not None] for some in runs)
        return held(max(mine, default=None), max(dense, default=None))
    if asked is None:
        return held()
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    try:
        dense_peak = fresh_peak(loaded.name, str(Recipe()), asked, dtype)
        with _found(loaded, model, recipe) as name:
            peak = fresh_peak(name, str(recipe.rest), asked, dtype)
    except ModelError as error:
        warnings.warn(f"the peak of memory is not known: {error}", PithWarning, stacklevel=3)
        return held()
    return held(peak, dense_peak)


@contextmanager
def _found(loaded: Loaded, model: Any, recipe: Recipe) -> Iterator[str]:
    """Under which name another process loads the model with the recipe's weights, and with nothing of the dense one."""
    if not len(recipe.weights):
        yield loaded.name
        return
    with TemporaryDirectory() as scratch:
        folder = folder_of(loaded, recipe) or Path(scratch) / "model"
        if not folder.is_dir():
            save(model, loaded.tokenizer, folder)
        yield str(folder)


@functools.cache
def fresh_peak(name: str, recipe: str, asked: tuple[int, int], dtype: str) -> int:
    """The resident peak of a process that loads a model by its name; looked at once for equal arguments.

    Raises:
        ModelError: it could not load the model, or ended in another way without a result.
    """
    length, seed = asked
    words = [name, "--recipe", recipe, "--length", str(length), "--seed", str(seed), "--dtype", dtype]
    command = [sys.executable, "-m", CHILD, *words, "--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines()
    if done.returncode:
        end = f"its process ended with code {done.returncode}"
        raise ModelError(lines[-1] if lines else end)
    found = json.loads(done.stdout.splitlines()[-1])
    if not found["fresh"]:
        warnings.warn("the peak of memory includes loading, which this system counts in", PithWarning, stacklevel=3)
    return int(found["peak"])
