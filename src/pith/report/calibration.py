"""Between which scores a task's own must be read: an oracle's, a guesser's, and the dense model's."""

from __future__ import annotations

from dataclasses import dataclass

from pith.report.row import Row, rows
from pith.report.words import headings
from pith.study import Study
from pith.tasks import Calibration, Quality, Task
from pith.tasks.early import tells


@dataclass(frozen=True)
class Scale:
    """One task's calibration.

    Attributes:
        name: the task's heading.
        task: the task.
        oracle, chance: what one who knows and one who guesses score; None where that is not known.
        dense: what the dense model scores.
    """

    name: str
    task: Task
    oracle: float | None
    chance: float | None
    dense: Quality

    @property
    def tells(self) -> bool:
        """Whether the dense model is better than a guesser by more than its 95 % interval; if not, losses are noise."""
        return tells(self.task, self.dense, Calibration(self.oracle or 0.0, self.chance))


def scales(study: Study, found: list[Row] | None = None) -> list[Scale]:
    """Each task's calibration, in their order; none before the dense model was measured."""
    found = rows(study) if found is None else found
    if not found:
        return []
    known = study.calibrations
    return [
        Scale(name, task, c.oracle if (c := known.get(str(task))) else None, c.chance if c else None,
              found[0].quality(task))
        for task, name in zip(study.question.tasks, headings(study.question.tasks), strict=True)
    ]  # fmt: skip
