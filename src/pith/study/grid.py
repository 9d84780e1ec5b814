"""What a comparison stands for: recipes at every budget, tasks with the settings that their text leaves open."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pith.core import (
    MOST,
    Budget,
    Call,
    InputError,
    Method,
    ParameterError,
    Parametrised,
    Recipe,
    built,
    load_calls,
    method,
    methods,
    nearest,
    parse_budget,
    parse_calls,
    parse_literal,
    shown,
)
from pith.tasks import Task, parse_tasks, tasks

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
            value = parse_literal(word)
        except ValueError:
            value = word
        if not isinstance(value, float | int | str):
            raise ParameterError(f"{shown(word)} is no budget; budgets look like 0.5,0.25 or 1024 or 64MiB")
        parse_budget(value)
        budgets.append(value)
    return budgets


def read_recipe(text: str) -> Recipe:
    """The recipe of a text, or of the `.toml` file whose path the text is.

    Raises:
        PithError: it is no recipe.
    """
    return Recipe.load(text.strip()) if _is_file(text) else Recipe.parse(text)


def grid(texts: Sequence[str] = (), budgets: Sequence[Budget] = (), families: Sequence[str] = ()) -> tuple[Recipe, ...]:
    """The recipes to compare, the dense model first, each once.

    Args:
        texts: recipes as text, or paths of `.toml` files.
        budgets: given to each method that has a `budget` which its text leaves open, also where the method stands in
            another one that has none itself; other recipes stand once.
        families: contracts, all of whose methods are added; without texts and families it is the evictions.

    Raises:
        PithError: a text is no recipe, a method cannot take a budget, or no method has such a contract.
    """
    names: dict[str, list[str]] = {}
    for name, found in methods().items():
        names.setdefault(found.contract, []).append(name)
    for family in families:
        if family not in names:
            there = ", ".join(names) or "none"
            raise InputError(f"no family is called {shown(family)}{nearest(family, names)}; there are: {there}")
    if not texts and not families:
        families = [EVICTION]
    wanted = [*texts, *(name for family in families for name in names.get(family, ()))]
    if not wanted:
        raise InputError("no method is registered that could be compared; name a recipe")
    recipes = [Recipe(), *(recipe for text in wanted for recipe in _at_budgets(_calls(text.strip()), budgets))]
    # by text: to Python budget=1, one token, equals budget=1.0, everything
    return tuple({str(recipe): recipe for recipe in recipes}.values())


def tasks_with(text: str, settings: Mapping[str, Any], lengths: Sequence[int] = ()) -> tuple[Task, ...]:
    """The tasks of a text such as `"needle(keys=8),perplexity"`.

    Args:
        text: the tasks, and suites of them.
        settings: parameters for each task that has them and whose text does not set them, such as `length`.
        lengths: each task that leaves its `length` open stands once at each of them; none leaves it to the settings.

    Raises:
        PithError: the text is no list of tasks, a value is wrong, a text or a chat is set that none of the tasks takes,
            or tasks that see the question before the cache is made smaller stand beside others that see it afterwards.
    """
    found = [task for length in lengths for task in parse_tasks(text, {**settings, "length": length})]
    found = found or parse_tasks(text, dict(settings))
    _require_taken(found, settings)
    names = [task.name for task in found]
    ordered = tuple(sorted(dict.fromkeys(found), key=lambda task: names.index(task.name)))
    asking = {task.asks: task for task in reversed(ordered)}
    if "aware" in asking and "agnostic" in asking:
        raise InputError(
            f"{asking['aware']} sees its question before the cache is made smaller, {asking['agnostic']} only "
            "afterwards, and their scores do not compare; ask them in two comparisons, or all by query='aware' or "
            "'agnostic'"
        )
    return ordered


def _require_taken(found: Sequence[Task], settings: Mapping[str, Any]) -> None:
    """Raise an error if a setting that only some tasks have is given, and none of these tasks has it."""
    for name in ("text", "chat", "haystack"):
        if name in settings and not any(p.name == name for task in found for p in task.parameters()):
            having = [one for one, kind in tasks().items() if any(p.name == name for p in kind.parameters())]
            raise InputError(
                f"`{name}` is set, and none of the tasks {shown(', '.join(t.name for t in found), 60)} has it; allowed "
                f"with it are tasks such as {', '.join(having[:3])}"
            )


def parse_lengths(text: str) -> list[int]:
    """The lengths of a text such as `"512,1024"`.

    Raises:
        InputError: one of them is no number of tokens.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    wrong = next((word for word in words if not word.isdecimal() or len(word) > 30 or not 0 < int(word) <= MOST), None)
    if wrong is not None:
        raise InputError(f"{shown(wrong)} is no length; lengths are numbers of tokens, below 2**63, such as 512,1024")
    return [int(word) for word in words]


def _calls(text: str) -> list[Call]:
    return load_calls(text) if _is_file(text) else parse_calls(text)


def _at_budgets(calls: Sequence[Call], budgets: Sequence[Budget]) -> Iterable[Recipe]:
    swept = [Recipe(built(_with_budget(call, budget)) for call in calls) for budget in budgets]
    return swept or [Recipe(map(built, calls))]


def _with_budget(call: Call, budget: Budget) -> Call:
    """The call with a budget where it leaves one open: its method's own, or else those of the methods in it."""
    parameters = method(call.name).parameters()
    if any(p.name == "budget" for p in parameters):
        return Call(call.name, {"budget": budget, **call.values})
    inner = {p.name: call.values.get(p.name, p.default) for p in parameters if p.takes}
    swept = {
        name: _with_budget(value, budget) if isinstance(value, Call) else _default_at(value, budget)
        for name, value in inner.items()
    }
    return Call(call.name, {**call.values, **swept})


def _default_at(value: Any, budget: Budget) -> Any:
    """A parameter's default at a budget; what is no method stays."""
    if not isinstance(value, Method):
        return value
    parameters = value.parameters()
    if any(p.name == "budget" for p in parameters):
        return _replaced(value, {"budget": budget})
    return _replaced(value, {p.name: _default_at(getattr(value, p.name), budget) for p in parameters if p.takes})


def _replaced(value: T, parameters: Mapping[str, Any]) -> T:
    return dataclasses.replace(value, **parameters)


def _is_file(text: str) -> bool:
    return text.strip().endswith(".toml")
