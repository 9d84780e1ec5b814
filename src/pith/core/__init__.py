"""What everything stands on: methods, papers, recipes, the registry, errors.

A method is a value; a recipe is an ordered set of methods. This room imports nothing of Pith.
"""

from pith.core.applied import applied
from pith.core.budget import MOST, Budget, ParsedBudget, parse_budget, parse_bytes
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
    error_line,
    nearest,
    shorten,
    shown,
)
from pith.core.files import read_bytes, read_json, read_text, require_file, resolve_path, user_path, write_whole
from pith.core.method import DenseCache, Method
from pith.core.notes import noted, warn
from pith.core.paper import Paper
from pith.core.parameters import Parameter, Parametrised, param, written
from pith.core.parse import DENSE, Call, Grammar, built, parse_calls, parse_literal
from pith.core.patterns import Patterns, fits
from pith.core.recipe import Recipe
from pith.core.registry import method, methods
from pith.core.runtime import runtime
from pith.core.toml import load_calls

__all__ = [
    "DENSE",
    "MOST",
    "Budget",
    "Call",
    "DenseCache",
    "Grammar",
    "InputError",
    "Method",
    "ModelError",
    "Paper",
    "Parameter",
    "ParameterError",
    "Parametrised",
    "ParsedBudget",
    "Patterns",
    "PithError",
    "PithWarning",
    "Recipe",
    "RecipeError",
    "RecipeSyntaxError",
    "StoreError",
    "UnknownMethodError",
    "applied",
    "built",
    "error_line",
    "fits",
    "load_calls",
    "method",
    "methods",
    "nearest",
    "noted",
    "param",
    "parse_budget",
    "parse_bytes",
    "parse_calls",
    "parse_literal",
    "read_bytes",
    "read_json",
    "read_text",
    "require_file",
    "resolve_path",
    "runtime",
    "shorten",
    "shown",
    "user_path",
    "warn",
    "write_whole",
    "written",
]
