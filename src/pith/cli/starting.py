"""What a long command says before it starts: the model, the machine, and what will be measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from pith.cli.pulse import about
from pith.core import Recipe
from pith.core.machine import processor
from pith.core.words import digits
from pith.measure.cost import SPEED
from pith.measure.seconds import DECODED
from pith.models import Loaded
from pith.report.words import headings, listed
from pith.study import Question
from pith.study.remaining import Remaining
from pith.tasks import Task


def model_line(loaded: Loaded) -> str:
    """Return the model, its parameters and dtype, the device or processor, and the threads, in one line."""
    model: Any = loaded.model
    count = sum(parameter.numel() for parameter in model.parameters())
    device = torch.device(model.device)
    where = (
        f"{processor()} with {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
        if device.type == "cpu"
        else torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    )  # fmt: skip
    size = f"{digits(count / 1e9)} billion" if count >= 1e9 else f"{digits(count / 1e6)} million"
    dtype = str(model.dtype).removeprefix("torch.")
    return f"{loaded.name}: {type(model).__name__}, {size} parameters, {dtype}, on {where}"


def study_line(question: Question, left: Sequence[tuple[Recipe, Task | None]]) -> str:
    """Return what a comparison measures: recipes, tasks with their examples and lengths, and timed runs."""
    recipes, runs, length = len(question.recipes), question.costs["runs"], question.costs["length"]
    names, sizes = headings(question.tasks), [_examples(task) for task in question.tasks]
    asked = listed([f"{name} ({size})" for name, size in zip(names, sizes, strict=True)])
    if len(set(sizes)) == 1 < len(sizes):
        asked = f"{listed(names)} ({sizes[0]} each)"
    what = [asked] if asked else []
    what.append(
        f"times by {runs} pair{'s' * (runs > 1)} of runs at {length} + {DECODED} tokens each" if runs
        else f"bytes at {length} tokens, no times"
    )  # fmt: skip
    others = recipes - 1
    line = f"to measure: the dense model and {others} recipe{'s' * (others != 1)}, each by {'; '.join(what)}"
    stored = recipes * (1 + len(question.tasks)) - len(left)
    return f"{line}; {stored} of {stored + len(left)} results are stored already" if stored else line


def _examples(task: Task) -> str:
    count, length = getattr(task, "count", None), getattr(task, "length", None)
    words = [f"{count} examples" if count else "all examples"]
    return " of ".join([*words, *([f"{length} tokens"] if length else [])])


def shorter(question: Question, remaining: Remaining, quick: str) -> str:
    """Return how a comparison could be made shorter, with what the options would save.

    Args:
        question: what is asked.
        remaining: what is left of it.
        quick: what `--quick` would set; empty where it is given already.
    """
    ways = [f"--quick ({quick})"] if quick else []
    if times := remaining.seconds([SPEED]):
        ways.append(f"--no-times saves {about(times)}")
    tasks = [piece.what for piece in remaining.pieces if piece.what != SPEED]
    counts = [count for task in question.tasks if isinstance(count := getattr(task, "count", None), int)]
    lengths = [length for task in question.tasks if isinstance(length := getattr(task, "length", None), int)]
    half = (remaining.seconds(tasks) or 0.0) / 2
    if counts and max(counts) >= 4:
        ways.append(f"--count {max(counts) // 2} saves {about(half)}")
    if lengths and max(lengths) >= 128:
        ways.append(f"--length {max(lengths) // 2} saves half or more")
    recipes = Counter(piece.recipe for piece in remaining.pieces)
    if len(recipes) > 2:
        ways.append(f"each recipe fewer saves {about((remaining.seconds() or 0.0) / len(recipes))}")
    return ", ".join(ways)
