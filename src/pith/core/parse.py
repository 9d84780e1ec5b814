"""Calls as text, such as `snapkv(budget=0.25) + other`: a Python expression, parsed, never evaluated."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any, NoReturn

from pith.core.errors import PithError, RecipeSyntaxError
from pith.core.method import Method
from pith.core.registry import method as registered


@dataclass(frozen=True)
class Call:
    """A name with values for its parameters."""

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
    """

    what: str
    joiner: str
    example: str
    empty: str
    error: type[PithError]

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
        if node.args:
            self._refuse(source, node.args[0].col_offset, f"a parameter is given by name, such as {self.example}")
        values: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                self._refuse(source, keyword.value.col_offset, f"a parameter is given by name, such as {self.example}")
            if keyword.arg in values:
                self._refuse(source, keyword.col_offset, f"{keyword.arg} is given twice")
            try:
                values[keyword.arg] = ast.literal_eval(keyword.value)
            except (ValueError, TypeError):
                self._refuse(
                    source, keyword.value.col_offset, "a parameter's value is a number, a text, True, False or None"
                )
        return Call(node.func.id, values)

    def _refuse(self, source: str, column: int, why: str) -> NoReturn:
        """Points at the place: two lines, the text and a caret below it."""
        line = source.replace("\n", " ")
        raise self.error(f"this is no {self.what}: {why}\n  {line}\n  {' ' * max(column, 0)}^")


_RECIPE = Grammar("recipe", "+", "snapkv(budget=0.25)", 'write "dense" for the model as it is', RecipeSyntaxError)


def parse_methods(text: str) -> list[Method]:
    """The methods of a text such as `snapkv(budget=0.25) + other`.

    Raises:
        RecipeSyntaxError: the text is no recipe; the message points at the place.
        UnknownMethodError, ParameterError: a method or a parameter is not known, or a value is wrong.
    """
    return [registered(call.name).build(**call.values) for call in _RECIPE.parse(text)]
