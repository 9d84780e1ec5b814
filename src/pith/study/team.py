"""Several workers on one study: they share what is to be answered through the store, and one that dies is replaced."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from signal import SIG_IGN, SIGINT, signal
from typing import Any

import torch

from pith.core import InputError, PithError
from pith.core.allocator import keep_freed_memory
from pith.study.compare import Measurer
from pith.study.question import Question
from pith.study.store import Store
from pith.study.work import Job, job, work, worker_name

Outcome = dict[str, str] | Exception | None
"""How a worker ended: the recipes that it found cannot be applied, its error, or None where it died."""

LOOK = 0.5
"""Seconds between looks at how many pieces are stored."""

DEATHS = 3
"""Workers that one piece may cost before it is given up; as many may die before they take any."""


class Team(ABC):
    """Workers that take the answers of a study side by side; how they are started is the derived class's.

    Args:
        count: how many there are.
        make: gives a worker its measurer, such as `Here.elsewhere()`; it goes to another process.
        progress: told how many answers are stored, and of how many.

    Raises:
        InputError: there are less than one.
    """

    def __init__(
        self, count: int, make: Callable[[], Measurer], progress: Callable[[int, int], None] | None = None
    ) -> None:
        if count < 1:
            raise InputError(f"workers={count} makes no sense; allowed is 1 or more")
        self.count, self.make = count, make
        self._progress = progress or (lambda done, total: None)

    @property
    def threads(self) -> int:
        """PyTorch's threads for each worker: this process's, divided."""
        return max(1, torch.get_num_threads() // self.count)

    def answer(self, question: Question, store: Store) -> dict[str, str]:
        """Stores every answer that is not stored yet; returns the recipes that cannot be applied, and why.

        A worker that dies is replaced: what it had in hand is taken again, everything else is stored.

        Raises:
            PithError: of a worker, as it was; or workers died again and again.
        """
        task = job(question, store, self.make, self.threads)
        left = len(task.keys) - len(store.held(task.keys))
        if not left:
            return {}
        refused: dict[str, str] = {}
        deaths: Counter[str] = Counter()
        names = [self._begin(task) for _ in range(min(self.count, left))]
        try:
            while names:
                for name, outcome in self._ended(LOOK):
                    names.remove(name)
                    if isinstance(outcome, Exception):
                        raise outcome
                    if outcome is None:
                        self._mourn(name, store, task, deaths)
                        names.append(self._begin(task))
                    else:
                        refused |= outcome
                self._progress(len(store.held(task.keys)), len(task.keys))
        finally:
            self._end()
            for name in names:
                store.release(name)
        return refused

    def _mourn(self, name: str, store: Store, task: Job, deaths: Counter[str]) -> None:
        """Gives up what a dead worker had in hand, and the study where that is deadly."""
        claimed = store.claims(name)
        store.release(name)
        deaths.update(claimed or {f"{len(store.held(task.keys))} stored"})
        key, count = deaths.most_common(1)[0]
        if count < DEATHS:
            return
        pieces = [f"{t} of {r}" for r in task.question.recipes for t in task.question.tasks]
        what = dict(zip(task.keys, pieces, strict=True)).get(key, "the model's loading")
        raise PithError(f"{count} workers died at {what}; where memory is short, fewer workers need less")

    def _begin(self, task: Job) -> str:
        name = worker_name()
        self._start(task, name)
        return name

    @abstractmethod
    def _start(self, task: Job, name: str) -> None:
        """Starts a worker of that name."""

    @abstractmethod
    def _ended(self, seconds: float) -> list[tuple[str, Outcome]]:
        """Waits until a worker ends, at most so long; those that did, and how."""

    @abstractmethod
    def _end(self) -> None:
        """Ends all workers that still run."""


class Workers(Team):
    """Worker processes on this machine; each loads the model once."""

    def __init__(
        self, count: int, make: Callable[[], Measurer], progress: Callable[[int, int], None] | None = None
    ) -> None:
        super().__init__(count, make, progress)
        self._running: dict[Connection, tuple[str, BaseProcess]] = {}

    def _start(self, task: Job, name: str) -> None:
        context = _context()
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_process, args=(task, name, theirs), name=name, daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends when the process does
        self._running[mine] = (name, process)

    def _ended(self, seconds: float) -> list[tuple[str, Outcome]]:
        ended = []
        for pipe in wait(list(self._running), seconds):
            assert isinstance(pipe, Connection)
            name, process = self._running.pop(pipe)
            try:
                outcome: Outcome = pipe.recv()
            except (EOFError, OSError):
                outcome = None
            pipe.close()
            process.join()
            ended.append((name, outcome))
        return ended

    def _end(self) -> None:
        for pipe, (_, process) in self._running.items():
            process.kill()
            process.join()
            pipe.close()
        self._running.clear()


def _context() -> Any:
    """How processes are started: from a clean one that has imported everything, or else each anew.

    Never as forks of this one: PyTorch's threads do not live through that.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["pith.study"])
    return context


def _process(task: Job, name: str, pipe: Connection) -> None:
    """What a worker process does; Ctrl-C is the business of the one that started it."""
    signal(SIGINT, SIG_IGN)
    warnings.simplefilter("ignore")  # those that matter stand as notes in the answers
    parent = parent_process()
    outcome: Outcome
    try:
        keep_freed_memory()
        outcome = work(task, name, alone=lambda: not (parent and parent.is_alive()))
    except PithError as error:
        outcome = error
    except Exception as error:  # a mistake of ours: told with its place, since the traceback stays behind
        import traceback

        outcome = RuntimeError(f"a worker failed\n{''.join(traceback.format_exception(error))}")
    pipe.send(outcome)
