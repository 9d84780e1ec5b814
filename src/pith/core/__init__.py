"""What everything stands on: methods, papers, recipes, the registry, errors.

A method is a value; a recipe is an ordered set of methods. This room imports nothing of Pith.
"""

from pith.core.applied import applied
from pith.core.budget import Budget, ParsedBudget, parse_budget, parse_bytes
from pith.core.errors import (
    InputError,
    ModelError,
    ParameterError,
    PithError,
    PithWarning,
    RecipeError,
    RecipeSyntaxError,
    StoreError,
    UnknownMethodError,
    nearest,
)
from pith.core.method import Method
from pith.core.paper import Paper
from pith.core.parameters import Parameter, Parametrised, param
from pith.core.parse import Grammar
from pith.core.recipe import DENSE, Recipe
from pith.core.registry import method, methods
from pith.core.runtime import runtime

__all__ = [
    "DENSE",
    "Budget",
    "Grammar",
    "InputError",
    "Method",
    "ModelError",
    "Paper",
    "Parameter",
    "ParameterError",
    "Parametrised",
    "ParsedBudget",
    "PithError",
    "PithWarning",
    "Recipe",
    "RecipeError",
    "RecipeSyntaxError",
    "StoreError",
    "UnknownMethodError",
    "applied",
    "method",
    "methods",
    "nearest",
    "param",
    "parse_budget",
    "parse_bytes",
    "runtime",
]
