"""Looking for a recipe: one that meets a measured budget, or the best that meets all limits.

`recipes_at` turns a recipe's own knob until its measured bytes or time meet a budget; `pith.search.fit` tries recipes
of every family. What is tried lies in the study's store.
"""

from pith.search.at import recipes_at
from pith.search.sought import Reached, Sought, Tried

__all__ = ["Reached", "Sought", "Tried", "recipes_at"]
