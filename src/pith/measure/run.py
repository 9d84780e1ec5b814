"""Taking one measurement."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pith.core import DenseCache, InputError, PithWarning, Recipe
from pith.measure.environment import environment
from pith.measure.measurement import CacheBytes, Measurement
from pith.measure.seconds import DECODED, Run, run_pairs, speed, timed_prompt
from pith.models import Loaded, Subject, require_positions
from pith.tasks import Quality, Task

Progress = Callable[[str, int, int], None]
"""Told what is measured, "speed" or a task's text, how much of it is done, and of how much."""


def measure(
    loaded: Loaded,
    recipe: Recipe,
    tasks: Sequence[Task] = (),
    *,
    length: int = 1024,
    batch_size: int = 8,
    runs: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measurement:
    """Measures what a recipe does to a model: seconds and bytes against the dense model in this process, and quality.

    The recipe without a method is measured as the model in plain Transformers; its ratios, of the model against
    itself, say how far the machine's noise reaches.

    Args:
        loaded: the model.
        recipe: the recipe.
        tasks: how quality is measured.
        length: tokens of the prompt that is timed and whose cache is weighed; one sequence.
        batch_size: sequences that a task reads at once; no score depends on it.
        runs: pairs of timed runs.
        seed: of the timed prompt; tasks have their own.
        progress: told how it goes on.

    Raises:
        InputError: a number makes no sense, or a task or the prompt is too long for the model.
        ModelError: a method cannot take the model.
    """
    for name, value in {"length": length, "batch_size": batch_size, "runs": runs}.items():
        if value < 1:
            raise InputError(f"{name}={value} makes no sense; allowed is 1 or more")
    require_positions(loaded.model, length + DECODED, f"a timed prompt of {length} tokens and {DECODED} decoded ones")
    subject = Subject(loaded.model, loaded.tokenizer, recipe if len(recipe) else None)

    def told(what: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(what, done, total) if progress else None

    with _noted() as notes:
        prompt = timed_prompt(loaded.tokenizer, length, seed).to(loaded.model.device)
        mine, dense = run_pairs(subject, prompt, runs, told("speed"))
        quality: dict[str, Quality] = {str(t): t.run(subject, batch_size, told(str(t))) for t in tasks}
    return Measurement(
        model=loaded.name,
        recipe=str(recipe),
        quality=quality,
        bytes=_weighed(loaded, recipe, mine[0], dense[0], length),
        speed=speed(mine, dense),
        notes=tuple(notes),
        environment=environment(
            loaded.model, {"seed": seed, "length": length, "decoded": DECODED, "batch_size": batch_size, "runs": runs}
        ),
    )


def _weighed(loaded: Loaded, recipe: Recipe, mine: Run, dense: Run, tokens: int) -> CacheBytes:
    config = loaded.model.config.get_text_config(decoder=True)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    whole = DenseCache(
        tokens=tokens,
        token_bytes=dense.prefill_bytes // tokens,
        layers=config.num_hidden_layers,
        head_dim=head_dim,
        number_bytes=loaded.model.dtype.itemsize,
    )
    return CacheBytes(
        prefill=mine.prefill_bytes,
        dense_prefill=dense.prefill_bytes,
        decoded=mine.decoded_bytes,
        dense_decoded=dense.decoded_bytes,
        tokens=tokens,
        claimed=math.prod((method.claimed(whole) for method in recipe), start=1.0),
    )


@contextmanager
def _noted() -> Iterator[list[str]]:
    """Collects the texts of Pith's warnings, each once; all other warnings go on as ever when it is over."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PithWarning)
        yield notes
    for warning in caught:
        if not issubclass(warning.category, PithWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        elif str(warning.message) not in notes:
            notes.append(str(warning.message))
