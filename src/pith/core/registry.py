"""The registry: every method that Pith's own families and other installed packages bring.

Both come in by one door, the entry-point group `pith.methods`. Its values name a package, whose modules are searched,
a module, or a method class.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from pith.core.errors import PithError, UnknownMethodError, nearest, shown
from pith.core.method import Method

GROUP = "pith.methods"


@functools.cache
def methods() -> dict[str, type[Method]]:
    """Every registered method by its name, sorted by contract and name.

    Raises:
        PithError: two different classes have one name, or a package's entry point does not import.
    """
    found: dict[str, type[Method]] = {}
    for point in entry_points(group=GROUP):
        try:
            loaded = point.load()
        except Exception as error:  # a foreign package may fail in any way; the user must learn which one
            raise PithError(f"the package that brings {GROUP} entry {point.name!r} does not load: {error}") from error
        for method in _methods_in(loaded):
            known = found.setdefault(method.name, method)
            if known is not method:
                raise PithError(
                    f"two methods are called {method.name!r}: {known.__module__}.{known.__qualname__} and "
                    f"{method.__module__}.{method.__qualname__}"
                )
    return dict(sorted(found.items(), key=lambda item: (item[1].contract, item[0])))


def method(name: str) -> type[Method]:
    """The method of that name.

    Raises:
        UnknownMethodError: there is none; the message names the nearest, or the command that lists all.
    """
    known = methods()
    if name not in known:
        hint = nearest(name, known) or "; `pith methods` lists all"
        raise UnknownMethodError(f"no method is called {shown(name)}{hint}")
    return known[name]


def _methods_in(loaded: Any) -> list[type[Method]]:
    if inspect.isclass(loaded) and issubclass(loaded, Method):
        return [loaded]
    modules: list[ModuleType] = [loaded]
    if hasattr(loaded, "__path__"):
        names = (m.name for m in pkgutil.walk_packages(loaded.__path__, loaded.__name__ + "."))
        modules += [importlib.import_module(n) for n in names]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
        and hasattr(value, "paper")
    ]
