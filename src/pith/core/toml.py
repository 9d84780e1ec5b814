"""Recipes as TOML: a table for each method, and a table in it for each method in a method."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from pith.core.errors import RecipeSyntaxError
from pith.core.method import Method
from pith.core.parameters import Patterns
from pith.core.parse import Call, method_parameters


def load_calls(path: str | Path) -> list[Call]:
    """The calls in a file of `[[method]]` tables: what it states, and nothing more.

    Raises:
        RecipeSyntaxError: the file cannot be read, or is no such TOML.
        UnknownMethodError: a method that holds a table is not known.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8")).get("method", [])
    except OSError as error:
        raise RecipeSyntaxError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeSyntaxError(f"{path} is no TOML: {error}") from None
    return [_call(table, "each [[method]] table", path) for table in (tables if isinstance(tables, list) else [tables])]


def table(method: Method) -> str:
    """The lines of a method's table, with every parameter written out."""
    return "\n".join(_entries(method))


def _call(table: Any, what: str, path: str | Path) -> Call:
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise RecipeSyntaxError(f'{path}: {what} needs a name, such as name = "snapkv"')
    taking = method_parameters(table["name"]) if any(isinstance(value, dict) for value in table.values()) else []
    values = {
        key: _call(value, f"the table {key!r}", path) if key in taking and isinstance(value, dict) else value
        for key, value in table.items()
        if key != "name"
    }
    return Call(table["name"], values)


def _entries(method: Method) -> list[str]:
    values = {p.name: getattr(method, p.name) for p in method.parameters()}
    return [f'name = "{method.name}"', *(f"{k} = {_value(v)}" for k, v in values.items() if v is not None)]


def _value(value: Any) -> str:
    """A parameter's value as TOML: numbers, texts and truth values are written as in JSON."""
    if isinstance(value, Patterns):
        return f"{{ {', '.join(f'{json.dumps(key)} = {json.dumps(one)}' for key, one in value.items())} }}"
    return f"{{ {', '.join(_entries(value))} }}" if isinstance(value, Method) else json.dumps(value)
