"""What a comparison stands for: recipes at every budget, tasks with the settings that their text leaves open."""

from __future__ import annotations

import ast
import dataclasses
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pith.core import Budget, InputError, ParameterError, Parametrised, Recipe, methods, parse_budget
from pith.tasks import Task, parse_tasks

T = TypeVar("T", bound=Parametrised)

EVICTION = "eviction"
"""The contract whose every method stands in a comparison that names no recipe."""


def parse_budgets(text: str) -> list[Budget]:
    """The budgets of a text such as `"0.5,0.25,64MiB"`.

    Raises:
        ParameterError: one of them is neither a share, nor a token count, nor bytes with a unit.
    """
    budgets: list[Budget] = []
    for word in filter(None, (w.strip() for w in text.split(","))):
        try:
            value = ast.literal_eval(word)
        except (ValueError, SyntaxError):
            value = word
        if not isinstance(value, float | int | str):
            raise ParameterError(f"{word!r} is no budget; budgets look like 0.5,0.25 or 1024 or 64MiB")
        parse_budget(value)
        budgets.append(value)
    return budgets


def read_recipe(text: str) -> Recipe:
    """The recipe of a text, or of the `.toml` file whose path the text is.

    Raises:
        PithError: it is no recipe.
    """
    return Recipe.load(text.strip()) if _is_file(text) else Recipe.parse(text)


def grid(texts: Sequence[str] = (), budgets: Sequence[Budget] = ()) -> tuple[Recipe, ...]:
    """The recipes to compare, the dense model first, each once.

    Args:
        texts: recipes as text, or paths of `.toml` files; none means every registered eviction.
        budgets: given to each method that has a `budget` which its text leaves open; other recipes stand once.

    Raises:
        PithError: a text is no recipe, or a method cannot take a budget.
    """
    names = [name for name, method in methods().items() if method.contract == EVICTION]
    if not texts and not names:
        raise InputError("no method is registered that could be compared; name a recipe")
    recipes = [Recipe(), *(recipe for text in texts or names for recipe in _at_budgets(text.strip(), budgets))]
    # by text: to Python budget=1, one token, equals budget=1.0, everything
    return tuple({str(recipe): recipe for recipe in recipes}.values())


def tasks_with(text: str, settings: Mapping[str, Any]) -> tuple[Task, ...]:
    """The tasks of a text such as `"needle(keys=8),perplexity"`.

    Args:
        text: the tasks.
        settings: parameters for each task that has them and whose text does not set them, such as `length`.

    Raises:
        PithError: the text is no list of tasks, or a value is wrong.
    """
    parse_tasks(text)
    body = ast.parse(text.strip(), mode="eval").body
    found = []
    for part in body.elts if isinstance(body, ast.Tuple) else [body]:
        [task] = parse_tasks(ast.unparse(part))
        stated = {keyword.arg for keyword in part.keywords} if isinstance(part, ast.Call) else set()
        takes = {p.name for p in task.parameters()} - stated
        found.append(_replaced(task, {k: v for k, v in settings.items() if k in takes}))
    return tuple(dict.fromkeys(found))


def _at_budgets(text: str, budgets: Sequence[Budget]) -> Iterable[Recipe]:
    recipe = read_recipe(text)
    stated = _stated_in_file(text) if _is_file(text) else _stated_in_text(text)
    left_open = {m for m in recipe if hasattr(m, "budget") and m.name not in stated}
    if not left_open or not budgets:
        return [recipe]
    return [Recipe(_replaced(m, {"budget": budget}) if m in left_open else m for m in recipe) for budget in budgets]


def _replaced(value: T, parameters: Mapping[str, Any]) -> T:
    return dataclasses.replace(value, **parameters)


def _is_file(text: str) -> bool:
    return text.strip().endswith(".toml")


def _stated_in_text(text: str) -> set[str]:
    """The methods whose budget the text sets; a value cannot tell, since the text may set the default."""
    calls = (node for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Call))
    return {ast.unparse(call.func) for call in calls if any(k.arg == "budget" for k in call.keywords)}


def _stated_in_file(path: str) -> set[str]:
    tables = tomllib.loads(Path(path).read_text(encoding="utf-8")).get("method", [])
    return {table["name"] for table in tables if "budget" in table}
