"""One worker of several: it claims a piece, takes it, stores it, and claims the next."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from pith.core import ModelError, PithError, Recipe, StoreError
from pith.study.compare import Measurer
from pith.study.question import Question
from pith.study.store import Store
from pith.tasks import Task

BEAT, DEAD = 2.0, 20.0
"""Seconds between a worker's signs of life, and without one after which its claim is another's to take."""

WAIT = 0.3
"""Seconds until a worker looks again whether what others have in hand was given up."""


@dataclass(frozen=True)
class Job:
    """What every worker of a study is told; it goes to other processes, and to other machines.

    Attributes:
        question: what is asked; the workers take its answers, never its times.
        keys: of the answers, in the order recipe by recipe, task by task.
        store: where the pieces are kept, as `Store` takes it.
        make: gives a worker its measurer, such as `Here.elsewhere()`.
        threads: of PyTorch, for each worker.
        folder: in which the files lie that the tasks name.
    """

    question: Question
    keys: tuple[str, ...]
    store: str
    make: Callable[[], Measurer]
    threads: int
    folder: str


def job(question: Question, store: Store, make: Callable[[], Measurer], threads: int) -> Job:
    """The job of the workers of a study."""
    return Job(question, _keys(question), store.where, make, threads, os.getcwd())


def work(job: Job, name: str, alone: Callable[[], bool] = lambda: False) -> dict[str, str]:
    """Takes answers until there is none left; waits for those that others have in hand, since they may die.

    Killed at any moment, it loses at most the answer in hand.

    Args:
        job: what is asked.
        name: the worker's, which no other has.
        alone: says whether the one who waits for this worker is gone; then the process ends.

    Returns:
        The recipes that cannot be applied to the model, and why, by the recipe's text.

    Raises:
        PithError: the dense model or a task cannot be measured, or the code or files here are not what the study
            began with.
    """
    if Path(job.folder).is_dir():
        os.chdir(job.folder)
    torch.set_num_threads(job.threads)
    if _keys(job.question) != job.keys:
        raise StoreError(f"the code or the tasks' files on {platform.node()} are not what the study began with")
    pieces = dict(zip(job.keys, _pieces(job.question), strict=True))
    refused: dict[str, str] = {}
    with Store(job.store, say=_say) as store, alive(store, name, alone):
        measurer = job.make()
        while True:
            held = store.held(job.keys)
            left = [k for k, (recipe, _) in pieces.items() if k not in held and str(recipe) not in refused]
            if not left:
                return refused
            key = next((k for k in left if store.claim(k, name, DEAD)), None)
            if key is None:
                time.sleep(WAIT)
                continue
            recipe, task = pieces[key]
            try:
                store.put(key, measurer.answer(recipe, task), job.question.of(recipe, task))
            except ModelError as error:
                if not len(recipe):
                    raise
                refused[str(recipe)] = str(error)
            finally:
                store.release(name)


def _say(line: str) -> None:
    """Say a line where the one who waits for this worker reads: a worker's warnings reach nobody."""
    print(f"pith: {line}", file=sys.stderr, flush=True)


def _pieces(question: Question) -> list[tuple[Recipe, Task]]:
    return [(recipe, task) for recipe in question.recipes for task in question.tasks]


def _keys(question: Question) -> tuple[str, ...]:
    return tuple(question.key(recipe, task) for recipe in question.recipes for task in question.tasks)


def worker_name() -> str:
    """Return a name for a worker of this process, which no other has."""
    return f"{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _machine() -> str:
    """Return what tells apart where process numbers count: two containers may have one name, and each its own."""
    try:
        return f"{platform.node()}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # other systems have no such file
        return platform.node()


def is_gone(worker: str) -> bool:
    """Return whether a worker is known to have ended: it ran on this machine, and its process is not there any more."""
    machine, process, _ = worker.rsplit("-", 2) if worker.count("-") > 1 else ("", "", "")
    if machine != _machine() or not (process.isascii() and process.isdecimal() and len(process) < 10):
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there, and another user's
        return False
    return False


@contextmanager
def alive(store: Store, name: str, alone: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Give signs of life from a thread of its own, so that no long piece is taken for a death.

    Args:
        store: where the claims are.
        name: the worker's.
        alone: says whether the one who waits for this worker is gone; then the process ends.
    """
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            # a database that is busy or away for a moment is no end; the worker itself learns if it stays so
            with suppress(PithError):
                store.release(name) if alone() else store.beat(name)
            if alone():
                os._exit(1)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
