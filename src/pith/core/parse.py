"""The text form of a recipe: a Python expression of names, calls, `+` and literals; parsed, never evaluated."""

from __future__ import annotations

import ast
from typing import NoReturn

from pith.core.errors import RecipeSyntaxError
from pith.core.method import Method
from pith.core.registry import method as registered


def parse_methods(text: str) -> list[Method]:
    """The methods of a text such as `snapkv(budget=0.25) + other`.

    Raises:
        RecipeSyntaxError: the text is no recipe; the message points at the place.
        UnknownMethodError, ParameterError: a method or a parameter is not known, or a value is wrong.
    """
    source = text.strip()
    if not source:
        raise RecipeSyntaxError('an empty text is no recipe; write "dense" for the model as it is')
    try:
        tree = ast.parse(source, mode="eval")
    except SyntaxError as error:
        _refuse(source, (error.offset or 1) - 1, error.msg)
    except (ValueError, RecursionError, MemoryError):
        _refuse(source, 0, "it cannot be parsed")
    return _sum(tree.body, source)


def _sum(node: ast.expr, source: str) -> list[Method]:
    methods: list[Method] = []
    while isinstance(node, ast.BinOp):
        if not isinstance(node.op, ast.Add):
            _refuse(source, node.right.col_offset, "methods are joined by +")
        methods.insert(0, _method(node.right, source))
        node = node.left
    return [_method(node, source), *methods]


def _method(node: ast.expr, source: str) -> Method:
    if isinstance(node, ast.Name):
        return registered(node.id).build()
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        _refuse(source, node.col_offset, "here a method's name is expected, such as snapkv(budget=0.25)")
    if node.args:
        _refuse(source, node.args[0].col_offset, "a parameter is given by name, such as budget=0.25")
    values = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            _refuse(source, keyword.value.col_offset, "a parameter is given by name, such as budget=0.25")
        try:
            values[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            _refuse(source, keyword.value.col_offset, "a parameter's value is a number, a text, True, False or None")
    return registered(node.func.id).build(**values)


def _refuse(source: str, column: int, why: str) -> NoReturn:
    """Points at the place: two lines, the text and a caret below it."""
    line = source.replace("\n", " ")
    raise RecipeSyntaxError(f"this is no recipe: {why}\n  {line}\n  {' ' * max(column, 0)}^")
