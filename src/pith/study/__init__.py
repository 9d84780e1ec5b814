"""Many measurements: asked in one command, stored one by one, resumable at any moment.

`compare` makes them; `Store` keeps them; `grid` says which recipes at which budgets.
"""

from pith.study.compare import Measurer, Question, Study, Watch, ask, compare
from pith.study.grid import grid, parse_budgets, read_recipe, tasks_with
from pith.study.here import Here
from pith.study.store import Store

__all__ = [
    "Here",
    "Measurer",
    "Question",
    "Store",
    "Study",
    "Watch",
    "ask",
    "compare",
    "grid",
    "parse_budgets",
    "read_recipe",
    "tasks_with",
]
