"""Check shapes in annotations at run time, in the first calls of each function in each test and in some later ones.

Checking every call takes more time than all else that the suite does.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import jaxtyping
import torch

FIRST = 4
"""Calls of a function in a test that are all checked; of later ones every call is whose number is a power of two."""

_checked_always = jaxtyping.jaxtyped
_calls: Counter[CodeType] = Counter()


def install(packages: list[str]) -> None:
    """Check the functions of packages that are imported from now on."""
    jaxtyping.jaxtyped = _checked_sometimes  # type: ignore[assignment]  # what the hook puts before each function
    jaxtyping.install_import_hook(packages, "beartype.beartype")


def begin_test() -> None:
    """Count calls anew."""
    _calls.clear()


def is_checked(call: int) -> bool:
    """Return whether the call with this number, from 1, is checked."""
    return call <= FIRST or not call & (call - 1)


def _checked_sometimes(decorated: Any = None, *, typechecker: Any) -> Any:
    if decorated is None:
        return functools.partial(_checked_sometimes, typechecker=typechecker)
    if not isinstance(decorated, FunctionType):  # a class
        return _checked_always(decorated, typechecker=typechecker)
    function, code = decorated, decorated.__code__
    checked: Callable[..., Any] | None = None

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        if torch.compiler.is_compiling():  # the compiler reads this function instead of calling it
            return function(*args, **kwargs)
        _calls[code] += 1
        if not is_checked(_calls[code]):
            return function(*args, **kwargs)
        if checked is None:  # made late: functions within functions are made at each call of the outer one
            checked = _checked_always(function, typechecker=typechecker)
        return checked(*args, **kwargs)

    return called
