"""Calls as text, such as `ada_kv(snapkv(budget=0.25)) + other`: a Python expression, parsed, never evaluated."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pith.core.errors import PithError, RecipeSyntaxError
from pith.core.method import Method
from pith.core.registry import method as registered

DENSE = "dense"
"""The text of the recipe without a method."""


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
            tree = ast.parse(source, mode="eval")
        except SyntaxError as error:
            self._refuse(source, (error.offset or 1) - 1, error.msg)
        except (ValueError, RecursionError, MemoryError):
            self._refuse(source, 0, "it cannot be parsed")
        return [self._call(node, source) for node in self._split(tree.body, source)]

    def _split(self, node: ast.expr, source: str) -> list[ast.expr]:
        nodes: list[ast.expr] = []
        if self.joiner == "," and isinstance(node, ast.Tuple) and node.elts:
            return node.elts
        while isinstance(node, ast.BinOp):
            if self.joiner != "+" or not isinstance(node.op, ast.Add):
                self._refuse(source, node.right.col_offset, f"its parts are joined by {self.joiner}")
            nodes.insert(0, node.right)
            node = node.left
        return [node, *nodes]

    def _call(self, node: ast.expr, source: str) -> Call:
        if isinstance(node, ast.Name):
            return Call(node.id, {})
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            self._refuse(source, node.col_offset, f"here a name is expected, such as {self.example}")
        values: dict[str, Any] = {}
        if node.args:
            taking = self._taking(node.func.id, node.args[0])
            if not taking or len(node.args) > 1:
                unnamed = node.args[1 if taking else 0]
                self._refuse(source, unnamed.col_offset, f"a parameter is given by name, such as {self.example}")
            values[taking[0]] = self._call(node.args[0], source)
        for keyword in node.keywords:
            if keyword.arg is None:
                self._refuse(source, keyword.value.col_offset, f"a parameter is given by name, such as {self.example}")
            if keyword.arg in values:
                self._refuse(source, keyword.col_offset, f"{keyword.arg} is given twice")
            values[keyword.arg] = self._value(node.func.id, keyword.arg, keyword.value, source)
        return Call(node.func.id, values)

    def _value(self, name: str, parameter: str, node: ast.expr, source: str) -> Any:
        taking = self._taking(name, node)
        if parameter in taking:
            return self._call(node, source)
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError):
            also = f"; a call is for {' or '.join(taking)}" if taking else ""
            self._refuse(source, node.col_offset, f"a parameter's value is a number, a text, True, False or None{also}")

    def _taking(self, name: str, value: ast.expr) -> Sequence[str]:
        """The parameters that a call may be the value of; none where the value is no call."""
        return self.takes_calls(name) if isinstance(value, ast.Name | ast.Call) else ()

    def _refuse(self, source: str, column: int, why: str) -> NoReturn:
        """Points at the place: two lines, the text and a caret below it."""
        line = source.replace("\n", " ")
        raise self.error(f"this is no {self.what}: {why}\n  {line}\n  {' ' * max(column, 0)}^")


def method_parameters(name: str) -> list[str]:
    """The parameters of a method whose values may be methods."""
    return [p.name for p in registered(name).parameters() if p.takes]


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
