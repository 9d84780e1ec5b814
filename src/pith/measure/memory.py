"""The most memory that reading a prompt and going on from it takes."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import warnings
from collections.abc import Sequence

import torch

from pith.core import ModelError, PithWarning, Recipe
from pith.measure.bytes import weight_bytes
from pith.measure.measurement import Memory
from pith.measure.seconds import Run
from pith.models import Loaded

CHILD = "pith.measure.peak"
"""The program that runs in the fresh process."""


def memory(
    loaded: Loaded, recipe: Recipe, runs: tuple[Sequence[Run], Sequence[Run]], asked: tuple[int, int] | None
) -> Memory:
    """What a recipe and the dense model need.

    Where the device has an allocator that counts, its peak over the runs that were timed. On the processor a process
    holds what it once got, so that a peak seen in this one would be that of what ran before: there each is looked at in
    a process of its own, which takes as long as loading the model twice.

    Args:
        loaded: the model.
        recipe: the recipe.
        runs: the timed runs of the recipe and of the dense model.
        asked: the prompt's length and seed, where the processor's peaks are wanted too.
    """
    weights, device = weight_bytes(loaded.model), torch.device(loaded.model.device)
    if device.type != "cpu":
        mine, dense = ([run.peak for run in some if run.peak is not None] for some in runs)
        return Memory(weights, max(mine, default=None), max(dense, default=None))
    if asked is None:
        return Memory(weights)
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    try:
        dense_peak, peak = (fresh_peak(loaded.name, str(r), asked, dtype) for r in (Recipe(), recipe))
    except ModelError as error:
        warnings.warn(f"the peak of memory is not known: {error}", PithWarning, stacklevel=3)
        return Memory(weights)
    return Memory(weights, peak, dense_peak)


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
