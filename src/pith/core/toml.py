"""Recipes as TOML: a table for each method, and a table in it for each method in a method."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from pith.core.errors import RecipeSyntaxError, shown
from pith.core.files import read_text
from pith.core.method import Method
from pith.core.parse import Call, method_parameters
from pith.core.patterns import Patterns

RECIPES = 2**20
"""Bytes of a recipe's file, at most."""


def load_calls(path: str | Path) -> list[Call]:
    """The calls in a file of `[[method]]` tables: what it states, and nothing more.

    Raises:
        RecipeSyntaxError: the file cannot be read, or is no such TOML.
        UnknownMethodError: a method that holds a table is not known.
    """
    shown_path = shown(str(path), 120)
    text = read_text(path, limit=RECIPES, label="recipe ", error=RecipeSyntaxError)
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeSyntaxError(f"{shown_path} is not TOML: {error}") from None
    except ValueError:  # of `int`
        raise RecipeSyntaxError(f"{shown_path} is not TOML: a number has too many digits") from None
    except (RecursionError, MemoryError):
        raise RecipeSyntaxError(f"{shown_path} is not a recipe: it is nested too deeply") from None
    for key in found:
        if key != "method":
            raise RecipeSyntaxError(f"{shown_path} is not a recipe: it holds {shown(key, 40)}; allowed is [[method]]")
    tables = found.get("method", [])
    every = tables if isinstance(tables, list) else [tables]
    return [_call(table, "each [[method]] table", shown_path) for table in every]


def table(method: Method) -> str:
    """The lines of a method's table, with every parameter written out."""
    return "\n".join(_entries(method))


def _call(table: Any, what: str, path: str) -> Call:
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise RecipeSyntaxError(f'recipe {path}: {what} needs a name, such as name = "snapkv"')
    taking = method_parameters(table["name"]) if any(isinstance(value, dict) for value in table.values()) else []
    values = {
        key: _call(value, f"the table {shown(key, 40)}", path) if key in taking and isinstance(value, dict) else value
        for key, value in table.items()
        if key != "name"
    }
    return Call(table["name"], values)


def _entries(method: Method) -> list[str]:
    values = {p.name: getattr(method, p.name) for p in method.parameters()}
    return [f'name = "{method.name}"', *(f"{k} = {_value(v)}" for k, v in values.items() if v is not None)]


def _value(value: Any) -> str:
    """A parameter's value as TOML."""
    if isinstance(value, Patterns):
        return f"{{ {', '.join(f'{_text(key)} = {_value(one)}' for key, one in value.items())} }}"
    if isinstance(value, Method):
        return f"{{ {', '.join(_entries(value))} }}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(value: str) -> str:
    """A text as TOML: as in JSON, but that characters beyond 16 bits have no escapes and DEL has one."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
