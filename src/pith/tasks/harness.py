"""What Pith asks of lm-evaluation-harness: its tasks, and the scores of their examples."""

from __future__ import annotations

import importlib
import io
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import lru_cache
from typing import Any

from pith.core import InputError, PithError, error_line, nearest, shown, user_path
from pith.core.files import is_folder
from pith.core.sources import folder_hashes

MAIN = ("acc_norm", "acc", "exact_match", "bits_per_byte")
"""The metrics that are a task's main one, the first that it has."""

Scored = tuple[float, float]
"""An example's score and its weight."""

Files = tuple[tuple[str, str], ...]
"""The files of a folder of tasks and their SHA-256."""

_NEVER = -1e6
"""A log-likelihood far below any that a model gives."""


def harness(module: str) -> Any:
    """A module of the harness, such as "api.model".

    Raises:
        InputError: the harness is not installed.
    """
    try:
        importlib.import_module("lm_eval")
    except ImportError:
        raise InputError("lm_eval needs lm-evaluation-harness: pip install pith-lm[lm-eval]") from None
    return importlib.import_module(f"lm_eval.{module}")


@contextmanager
def silent() -> Iterator[None]:
    """Keeps the harness's bars and news out: what matters is raised."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def load(name: str, include: str | None, fewshot: int | None) -> dict[str, Any]:
    """The harness's tasks of a name, as `evaluate` takes them; loaded anew where a file of `include` has changed.

    Args:
        name: of a task, a group or a tag.
        include: a folder with task files of one's own.
        fewshot: worked examples; a task whose own file says 0 stays with that, as in the harness.

    Raises:
        InputError: the harness is not installed, there is no such task, or it cannot be loaded.
    """
    harness("tasks")  # says first of all that the harness is missing, where it is
    if include is not None:
        folder = user_path(include, label="lm_eval: include=")
        if not is_folder(folder):
            raise InputError(f"lm_eval: include={shown(include)} is no folder; allowed is one that holds task files")
        return _loaded(name, str(folder), fewshot, tuple(folder_hashes(folder, "lm_eval: include=").items()))
    return _loaded(name, None, fewshot, ())


@lru_cache(maxsize=8)  # every recipe of a comparison is asked the same, and loading takes seconds
def _loaded(name: str, include: str | None, fewshot: int | None, files: Files) -> dict[str, Any]:
    manager = _manager(include, include is None, files)
    if include is not None and name not in manager.all_tasks:
        manager = _manager(include, True, files)
    if name not in manager.all_tasks:
        near = nearest(name, manager.all_tasks) or "; allowed are the names that `lm-eval ls tasks` lists"
        raise InputError(f"lm_eval: no task is called {name!r}{near}")
    try:
        with silent():
            loaded: dict[str, Any] = manager.load(name)
    except Exception as error:  # a task file or a download may fail in any way; the user must learn which one did
        raise InputError(f"lm_eval: task={name!r} cannot be loaded: {error_line(error)}") from error
    for key, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
            raise InputError(f"lm_eval: task={key!r} runs code or shows pictures; allowed are tasks of text alone")
        stated = task.get_config("num_fewshot")
        task.set_config(key="num_fewshot", value=stated or 0 if fewshot is None or stated == 0 else fewshot)
    return loaded


def examples_of(
    loaded: dict[str, Any], reader: Any, score: str | None, count: int | None, seed: int, chat: bool = False
) -> list[Scored]:
    """Every example's score and weight, in the tasks' order.

    Args:
        loaded: the tasks.
        reader: who answers, as `harness_model` makes it.
        score: the metric; None is each task's main one.
        count: the most examples of each task; None is all.
        seed: of the draw of worked examples.
        chat: whether prompts stand in the reader's chat template, worked examples as earlier turns.

    Raises:
        InputError: a task has no such metric, or the harness refuses to ask it so.
    """
    metrics = {name: _metric(task, score) for name, task in loaded["tasks"].items()}
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=seed)
    try:
        with silent():
            found = harness("evaluator").evaluate(
                reader,
                loaded,
                limit=count,
                bootstrap_iters=0,
                log_samples=True,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
            )
    except PithError:
        raise
    except (ValueError, AssertionError) as error:
        raise InputError(f"lm_eval: {', '.join(metrics)} cannot be asked so: {error_line(error)}") from error
    return [
        _scored(loaded["tasks"][name], metric, sample[metric])
        for name, (metric, kept) in metrics.items()
        for sample in found["samples"][name]
        if sample["filter"] == kept
    ]


def oracle_and_chance(loaded: dict[str, Any], score: str | None, count: int | None) -> tuple[float, float | None]:
    """What the tasks' own scorers say of the reference answers, and of one who names a choice at random.

    Where a scorer cannot be asked about an answer without a model, the oracle has 1, as of a share. Chance is None
    where an example has no choices, or the metric is no share of right ones.
    """
    best: list[Scored] = []
    guessed: list[float | None] = []
    for task in loaded["tasks"].values():
        metric, _ = _metric(task, score)
        for _, doc in task.doc_iterator(limit=count):
            chosen = task.OUTPUT_TYPE == "multiple_choice"
            try:
                best.append(_scored(task, metric, task.process_results(doc, _ideal(task, doc))[metric]))
            except Exception:  # scorers of other hands may want anything
                best.append((1.0, 1.0))
            right = len(_right(task, doc)) / len(task.doc_to_choice(doc)) if chosen else None
            guessed.append(right if metric.startswith("acc") else None)
    oracle = sum(value for value, _ in best) / sum(weight for _, weight in best)
    shares = [share for share in guessed if share is not None]
    return oracle, sum(shares) / len(shares) if len(shares) == len(guessed) else None


def _metric(task: Any, score: str | None) -> tuple[str, str]:
    """The name of a task's metric and of its filter."""
    has = [name for name, how in task.aggregation().items() if how in (harness("api.metrics").mean, *_logarithmic())]
    name, _, chosen = (score or next((m for m in (*MAIN, *has) if m in has), "")).partition(",")
    filters = [one["name"] for one in task.config.filter_list or [{"name": "none"}]]
    if name not in has:
        allowed = ", ".join(has) or "a task that has a metric which is a mean over its examples"
        given = f"score={score!r} is" if score else f"{', '.join(task.aggregation())} are"
        raise InputError(f"lm_eval: {given} no mean over the examples of {task.config.task!r}; allowed is {allowed}")
    if chosen and chosen not in filters:
        raise InputError(f"lm_eval: {task.config.task!r} has no filter {chosen!r}; allowed is {', '.join(filters)}")
    return name, chosen or filters[0]


def _scored(task: Any, metric: str, given: Any) -> Scored:
    """An example's score and weight from what the harness says of it."""
    how = task.aggregation()[metric]
    perplexity, *weighted = _logarithmic()
    if how is perplexity:
        return float(given), 1.0
    if how in weighted:
        return given[0] / math.log(2), float(given[1])
    return float(given) * (1.0 if task.higher_is_better().get(metric, True) else -1.0), 1.0


def _logarithmic() -> tuple[Any, ...]:
    """The harness's functions that make a perplexity of an answer, of a word or a byte, and bits per byte."""
    metrics = harness("api.metrics")
    return metrics.perplexity, metrics.weighted_perplexity, metrics.bits_per_byte


def _ideal(task: Any, doc: Any) -> list[Any]:
    """What the harness would hear from one who knows the answer."""
    if task.OUTPUT_TYPE == "multiple_choice":
        right, choices = _right(task, doc), task.doc_to_choice(doc)
        told = [(0.0, True) if index in right else (_NEVER, False) for index in range(len(choices))]
        return told + [(0.0, False)] * (len(choices) if "acc_mutual_info" in task.aggregation() else 0)
    if task.OUTPUT_TYPE == "loglikelihood":
        return [(0.0, True)]
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return [0.0]
    target = task.doc_to_target(doc)
    if task.config.doc_to_choice is not None:
        target = task.doc_to_choice(doc)[target]
    return [str(target[0] if isinstance(target, list) else target)]


def _right(task: Any, doc: Any) -> set[int]:
    """The places of the right choices."""
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if isinstance(gold, str):
        gold = task.doc_to_choice(doc).index(gold)
    return set(gold) if isinstance(gold, list) else {gold}


@lru_cache(maxsize=4)  # all of the harness's own files are read, which takes seconds
def _manager(include: str | None, defaults: bool, files: Files) -> Any:
    with silent():
        return harness("tasks").TaskManager(include_path=include, include_defaults=defaults)
