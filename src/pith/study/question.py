"""What a comparison asks, and under which keys its answers lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from pith.core import Recipe
from pith.core.sources import files_of
from pith.measure.environment import environment
from pith.measure.seconds import RUNS
from pith.models import Loaded, model_hash, tokenizer_hash
from pith.models.smaller import reads_texts
from pith.study.sources import code_hash
from pith.tasks import Task
from pith.tasks.heldout import heldout_text
from pith.tasks.prose import prose_text
from pith.texts import held_out_prose

_MACHINE = ("processor", "cores", "threads", "device", "torch")
"""What of the environment times depend on so much that those of another one are no answer."""


@dataclass(frozen=True)
class Question:
    """What a comparison asks.

    The key of a piece covers everything that its result depends on: model, tokenizer and dtype, recipe, task or timed
    prompt, the files that they name, and the code that they run (`code_hash`), so that nothing stale is found after an
    edit, and no commit elsewhere throws results away. Bytes and seconds depend on the machine too.

    Attributes:
        model: the model's name, as the user gave it.
        recipes: what is compared, in this order; the dense model is the first.
        tasks: how quality is measured.
        settings: what else every result depends on, as plain data.
        costs: what bytes and seconds depend on besides, such as the length of the timed prompt.
        calibration: what results of recipes depend on besides whose methods read calibration texts.
    """

    model: str
    recipes: tuple[Recipe, ...]
    tasks: tuple[Task, ...]
    settings: Mapping[str, Any]
    costs: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)

    def of(self, recipe: Recipe, task: Task | None = None) -> dict[str, Any]:
        """What one piece of a recipe's measurement depends on, as plain data: a task's answer, or else the costs."""
        what = {"task": str(task)} if task else {"costs": dict(self.costs)}
        read = {"calibration": dict(self.calibration)} if reads_texts(recipe) else {}
        files: dict[str, str] = {}
        for value in (*recipe, *([task] if task else [])):
            files |= files_of(value)
        return {
            "recipe": str(recipe),
            **what,
            **read,
            "files": files,
            "code": code_hash(recipe, task),
            **self.settings,
        }

    def key(self, recipe: Recipe, task: Task | None = None) -> str:
        """What the piece is stored under: equal for equal questions only."""
        return hashlib.sha256(json.dumps(self.of(recipe, task), sort_keys=True).encode()).hexdigest()


def ask(
    loaded: Loaded,
    recipes: tuple[Recipe, ...],
    tasks: tuple[Task, ...],
    *,
    length: int,
    seed: int,
    runs: int = RUNS,
    peak: bool = False,
) -> Question:
    """The question what recipes do to a loaded model.

    Args:
        loaded: the model; its weights are hashed, its name plays no part.
        recipes: what is compared, the dense model first, as `grid` gives them.
        tasks: how quality is measured.
        length: tokens of the prompt that is timed and whose cache is weighed.
        seed: of that prompt; tasks have their own.
        runs: pairs of timed runs; 0 times nothing.
        peak: whether the peak of memory is asked for.

    Raises:
        InputError: a method reads calibration texts, and they cannot be read.
    """
    settings = {
        "model": model_hash(loaded.model),
        "tokenizer": tokenizer_hash(loaded.tokenizer),
        "heldout": heldout_hash(),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "device": str(loaded.model.device),
        "pith": version("pith-lm"),
        "transformers": version("transformers"),
    }
    where = environment(loaded.model, {})
    costs: dict[str, Any] = {"length": length, "seed": seed, "runs": runs, "peak": peak}
    if runs or peak:  # bytes alone do not depend on the machine
        costs["machine"] = {name: where[name] for name in _MACHINE}
    calibration = loaded.source.identity(loaded.tokenizer) if any(map(reads_texts, recipes)) else {}
    return Question(loaded.name, recipes, tasks, settings, costs, calibration)


def heldout_hash() -> str:
    """16 hexadecimal digits of the texts that tasks read: Python's, which differ with its version, and Pith's prose."""
    return hashlib.sha256((heldout_text() + prose_text() + held_out_prose()).encode()).hexdigest()[:16]
