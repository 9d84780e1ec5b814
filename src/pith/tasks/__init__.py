"""Tasks: what quality means.

A task is a value with parameters, as a method is; `run` gives a score with its 95 % confidence interval.
"""

from pith.tasks.base import BatchedTask, Calibration, Progress, Quality, Query, Task
from pith.tasks.needle import Needle
from pith.tasks.perplexity import Perplexity
from pith.tasks.registry import parse_tasks, task, tasks

__all__ = [
    "BatchedTask",
    "Calibration",
    "Needle",
    "Perplexity",
    "Progress",
    "Quality",
    "Query",
    "Task",
    "parse_tasks",
    "task",
    "tasks",
]
