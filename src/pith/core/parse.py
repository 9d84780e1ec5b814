"""Calls as text, such as `ada_kv(snapkv(budget=0.25)) + other`: a Python expression, parsed, never evaluated."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pith.core.errors import PithError, RecipeSyntaxError, shorten
from pith.core.method import Method
from pith.core.registry import method as registered

DENSE = "dense"
"""The text of the recipe without a method."""


WINDOW = 60
"""Characters of a text that an error shows around the place where it is wrong."""


@dataclass(frozen=True)
class Call:
    """A name with values for its parameters; a value may be a call itself."""

    name: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Grammar:
    """How calls are written one after another.

    Attributes:
        what: what the text is, for messages.
        joiner: what stands between two calls.
        example: a call, for messages.
        empty: what to write instead of an empty text, for messages.
        error: what is raised for a text that is none; its message points at the place.
        takes_calls: the parameters, of the call of that name, whose values may be calls; one that stands without a
            name, before all others, is the first's. No parameter's, unless this is given.
    """

    what: str
    joiner: str
    example: str
    empty: str
    error: type[PithError]
    takes_calls: Callable[[str], Sequence[str]] = lambda name: ()

    def parse(self, text: str) -> list[Call]:
        """The calls in a text.

        Raises:
            PithError: as `error` says.
        """
        source = text.strip()
        if not source:
            raise self.error(f"an empty text is no {self.what}; {self.empty}")
        try:
            tree = parse_expression(source)
            return [self._call(node, source) for node in self._split(tree, source)]
        except SyntaxError as error:
            digits = error.msg.startswith("Exceeds the limit")
            why = "a number has too many digits" if digits else error.msg
            raise self._wrong(source, _offset(source, error.lineno or 1, error.offset or 1), why) from None
        except (RecursionError, MemoryError):
            raise self._wrong(source, 0, "it is too long, or nested too deeply") from None
        except ValueError:  # characters that are not Unicode, or a NUL
            raise self._wrong(source, 0, "it holds characters that are not allowed") from None

    def _split(self, node: ast.expr, source: str) -> list[ast.expr]:
        nodes: list[ast.expr] = []
        if self.joiner == "," and isinstance(node, ast.Tuple) and node.elts:
            return node.elts
        while isinstance(node, ast.BinOp):
            if self.joiner != "+" or not isinstance(node.op, ast.Add):
                self._refuse(source, node.right, f"its parts are joined by {self.joiner}")
            nodes.insert(0, node.right)
            node = node.left
        return [node, *nodes]

    def _call(self, node: ast.expr, source: str) -> Call:
        if isinstance(node, ast.Name):
            return Call(node.id, {})
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            self._refuse(source, node, f"here a name is expected, such as {self.example}")
        values: dict[str, Any] = {}
        if node.args:
            taking = self._taking(node.func.id, node.args[0])
            if not taking or len(node.args) > 1:
                unnamed = node.args[1 if taking else 0]
                self._refuse(source, unnamed, f"a parameter is given by name, such as {self.example}")
            values[taking[0]] = self._call(node.args[0], source)
        for keyword in node.keywords:
            if keyword.arg is None:
                self._refuse(source, keyword.value, f"a parameter is given by name, such as {self.example}")
            if keyword.arg in values:
                self._refuse(source, keyword, f"{shorten(keyword.arg)} is given twice")
            values[keyword.arg] = self._value(node.func.id, keyword.arg, keyword.value, source)
        return Call(node.func.id, values)

    def _value(self, name: str, parameter: str, node: ast.expr, source: str) -> Any:
        taking = self._taking(name, node)
        if parameter in taking:
            return self._call(node, source)
        try:
            return parse_literal(node)
        except ValueError:
            also = f"; a call is for {' or '.join(taking)}" if taking else ""
            self._refuse(source, node, f"a parameter's value is a number, a text, True, False or None{also}")

    def _taking(self, name: str, value: ast.expr) -> Sequence[str]:
        """The parameters that a call may be the value of; none where the value is no call."""
        return self.takes_calls(name) if isinstance(value, ast.Name | ast.Call) else ()

    def _refuse(self, source: str, node: ast.expr | ast.keyword, why: str) -> NoReturn:
        ahead = source.split("\n")[node.lineno - 1].encode()[: node.col_offset]  # columns are counted in bytes
        raise self._wrong(source, _offset(source, node.lineno, len(ahead.decode(errors="replace")) + 1), why)

    def _wrong(self, source: str, place: int, why: str) -> PithError:
        """Return the error that points at a character of the text: two lines, what is around it and a caret."""
        start = max(0, min(place - WINDOW // 2, len(source) - WINDOW))
        line = "".join(one if one.isprintable() else " " for one in source[start : start + WINDOW])
        return self.error(f"this is no {self.what}: {why}", f"\n  {line}\n  {' ' * (place - start)}^")


def parse_expression(text: str) -> ast.expr:
    """Return the Python expression that a text holds; Python's warnings about it are silenced.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as of `ast.parse`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, mode="eval").body


def parse_literal(source: str | ast.expr) -> Any:
    """Return the number, text, tuple, list or dictionary that a text or an expression writes.

    Raises:
        ValueError: it is anything else, or is nested too deeply.
    """
    try:
        return ast.literal_eval(parse_expression(source) if isinstance(source, str) else source)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from None


def method_parameters(name: str) -> list[str]:
    """The parameters of a method whose values may be methods."""
    return [p.name for p in registered(name).parameters() if p.takes]


def _offset(source: str, line: int, column: int) -> int:
    """Return the place in a text of a line and a column, both counted from 1."""
    lines = source.split("\n")
    return min(sum(len(one) + 1 for one in lines[: line - 1]) + max(column - 1, 0), len(source))


_RECIPE = Grammar(
    what="recipe",
    joiner="+",
    example="snapkv(budget=0.25)",
    empty='write "dense" for the model as it is',
    error=RecipeSyntaxError,
    takes_calls=method_parameters,
)


def parse_calls(text: str) -> list[Call]:
    """The calls of a recipe such as `ada_kv(snapkv(budget=0.25)) + other`: what it states, and nothing more.

    Raises:
        RecipeSyntaxError: the text is no recipe; the message points at the place.
        UnknownMethodError: a method is not known.
    """
    return [] if text.strip() == DENSE else _RECIPE.parse(text)


def built(call: Call) -> Method:
    """The method that a call stands for, with the methods in it.

    Raises:
        UnknownMethodError, ParameterError: a method or a parameter is not known, or a value is wrong.
    """
    values = {name: built(value) if isinstance(value, Call) else value for name, value in call.values.items()}
    return registered(call.name).build(**values)
