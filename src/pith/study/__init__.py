"""Many measurements: asked in one command, stored one by one, resumable at any moment.

`compare` makes them, with `Workers` side by side; `Store` keeps them; `grid` says which recipes at which budgets.
"""

from pith.study.compare import Helpers, Measurer, Study, Watch, compare
from pith.study.grid import grid, parse_budgets, parse_lengths, read_recipe, tasks_with
from pith.study.here import Elsewhere, Here
from pith.study.question import Question, ask
from pith.study.ray_cluster import RayWorkers
from pith.study.record import Record, Settings, read_record, record, write_record
from pith.study.store import Store
from pith.study.team import Team, Workers
from pith.study.telling import Telling

__all__ = [
    "Elsewhere",
    "Helpers",
    "Here",
    "Measurer",
    "Question",
    "RayWorkers",
    "Record",
    "Settings",
    "Store",
    "Study",
    "Team",
    "Telling",
    "Watch",
    "Workers",
    "ask",
    "compare",
    "grid",
    "parse_budgets",
    "parse_lengths",
    "read_recipe",
    "read_record",
    "record",
    "tasks_with",
    "write_record",
]
