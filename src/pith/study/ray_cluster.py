"""Workers on a Ray cluster (extra `ray`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from pith.core import InputError, PithError
from pith.study.compare import Measurer
from pith.study.question import Question
from pith.study.store import Store
from pith.study.team import Outcome, Team
from pith.study.work import Job, work

LOCAL = "local"
"""The address that starts a Ray of its own on this machine, and ends it afterwards."""


class RayWorkers(Team):
    """Workers as Ray actors, each with one processor, or one CUDA device where the model is on one.

    The machines of a cluster need Pith as it is here, the model under the same name and the tasks' files at the same
    paths; a worker that finds others ends the study.

    Args:
        address: of a cluster, as `ray.init` takes it, such as `auto` or `ray://HOST:10001`; `local` starts one here.
        count: how many there are.
        make: gives a worker its measurer, such as `Here.elsewhere()`.
        progress: told how many answers are stored, and of how many.

    Raises:
        InputError: Ray is not installed, or there are less than one.
    """

    def __init__(
        self, address: str, count: int, make: Callable[[], Measurer], progress: Callable[[int, int], None] | None = None
    ) -> None:
        super().__init__(count, make, progress)
        try:
            import ray
        except ImportError:
            raise InputError("Ray is not installed: pip install pith-lm[ray]") from None
        self.address = address
        self._ray: Any = ray
        self._running: dict[Any, tuple[str, Any]] = {}

    def answer(self, question: Question, store: Store) -> dict[str, str]:
        """As every team; Ray is started or joined before, and left afterwards.

        Raises:
            InputError: the cluster cannot be joined, or other machines cannot reach the store.
            PithError: as of every team.
        """
        if self.address != LOCAL and not store.shared:
            raise InputError(
                f"the machines of the cluster {self.address!r} cannot reach the file {store.place}; name a PostgreSQL "
                "database by --store, or take --ray local"
            )
        joined = self._join()
        try:
            return super().answer(question, store)
        finally:
            if joined:
                self._ray.shutdown()

    def _join(self) -> bool:
        """Whether Ray was joined here: one that the caller's program had joined before stays."""
        if self._ray.is_initialized():
            return False
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if self.address == LOCAL:
                self._ray.init(LOCAL, num_cpus=self.count, include_dashboard=False, **quiet)
            else:
                self._ray.init(self.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"the Ray cluster {self.address!r} cannot be joined: {why}") from None
        return True

    def _start(self, task: Job, name: str) -> None:
        cuda = int(str(task.question.settings.get("device", "")).startswith("cuda"))
        actor = self._ray.remote(num_cpus=1, num_gpus=cuda, max_restarts=0)(_Actor).remote()
        self._running[actor.run.remote(task, name)] = (name, actor)

    def _ended(self, seconds: float) -> list[tuple[str, Outcome]]:
        ready, _ = self._ray.wait(list(self._running), timeout=seconds)
        return [(self._running[one][0], self._outcome(one, self._running.pop(one)[1])) for one in ready]

    def _outcome(self, reference: Any, actor: Any) -> Outcome:
        try:
            found: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            return None
        except self._ray.exceptions.RayTaskError as error:
            return error.cause if isinstance(error.cause, PithError) else RuntimeError(f"a worker failed\n{error}")
        self._ray.kill(actor)
        return found

    def _end(self) -> None:
        for _, actor in self._running.values():
            self._ray.kill(actor)
        self._running.clear()


class _Actor:
    """One worker."""

    def run(self, task: Job, name: str) -> dict[str, str]:
        return work(task, name)
