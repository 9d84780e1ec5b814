"""What code and which files a value depends on, as short hashes."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from pith.core.parameters import Parametrised

_DATA = (".json", ".jsonl", ".md", ".py", ".safetensors", ".txt", ".yaml", ".yml")
"""The suffixes of what a task may read from a folder that one of its parameters names."""


def code_of(values: Iterable[Parametrised], modules: Collection[str] = ()) -> str:
    """16 hexadecimal digits that differ where the code differs that methods or tasks are made of.

    It is the text of the modules that define them and the methods in them, and of every module that these import, and
    so on, within Pith and within the package that brings one; words that only people read play no part. What PyTorch
    and Transformers do is no part of it either.

    Args:
        values: the methods and tasks.
        modules: further modules to begin with.
    """
    owners = {type(one).__module__ for value in values for one in _within(value)}
    return _hash(frozenset(owners | set(modules)))


def files_of(value: Parametrised) -> dict[str, str]:
    """The files that the parameters of a task or of a method name, and the SHA-256 of what they hold.

    Of a folder it is the files in it that may be data or settings of a task.
    """
    texts = [v for one in _within(value) for p in one.parameters() if isinstance(v := getattr(one, p.name), str)]
    return {str(path): file_hash(path) for text in texts if text for path in _files(Path(text))}


def file_hash(path: str | Path) -> str:
    """The SHA-256 of a file."""
    state = Path(path).stat()
    return _file_hash(str(path), state.st_size, state.st_mtime_ns)


@cache  # every recipe of a comparison asks
def _file_hash(path: str, size: int, changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _within(value: Parametrised) -> Iterator[Parametrised]:
    """A method or a task, and the methods that its parameters are."""
    yield value
    for parameter in value.parameters():
        inner: Any = getattr(value, parameter.name)
        if isinstance(inner, Parametrised):
            yield from _within(inner)


def _files(path: Path) -> Iterable[Path]:
    try:
        if path.is_file():
            return [path]
        return sorted(p for p in path.rglob("*") if p.suffix in _DATA and p.is_file()) if path.is_dir() else []
    except OSError:  # a text that is no path, such as one that is too long
        return []


@cache
def _hash(roots: frozenset[str]) -> str:
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += _imports(name)
    digest = hashlib.sha256()
    for name in sorted(reached):
        digest.update(f"{name} {_code(name)}".encode())
    return digest.hexdigest()[:16]


@cache
def _code(module: str) -> str:
    """What a module does, as text: without comments and docstrings."""
    tree = ast.parse(_text(module))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            del node.body[0]
    return ast.dump(tree)


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_text(module))


@cache
def _text(module: str) -> str:
    """A module's source; nothing where it has none, as what is typed at a prompt."""
    path = _path(module)
    return path.read_text(encoding="utf-8") if path else ""


@cache
def _path(module: str) -> Path | None:
    """A module's file, without importing it."""
    top, *rest = module.split(".")
    found = getattr(sys.modules.get(module), "__file__", None)
    if not found and rest:
        spec = find_spec(top)
        base = Path(spec.origin).parent.joinpath(*rest) if spec and spec.origin else Path()
        found = next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)
    return Path(found) if found and str(found).endswith(".py") else None


@cache
def _imports(module: str) -> frozenset[str]:
    """The modules of the same package, and of Pith, that a module imports."""
    homes = {module.partition(".")[0], "pith"}
    found: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = _source(node, module)
            if package.partition(".")[0] in homes:
                found.update(_where(package, alias.name) for alias in node.names)
    return frozenset(name for name in found if name.partition(".")[0] in homes and _path(name))


def _where(package: str, name: str) -> str:
    """The module that `from package import name` reads: a package's list of names is no code that a result needs."""
    if _path(f"{package}.{name}"):
        return f"{package}.{name}"
    path = _path(package)
    if path and path.name == "__init__.py":
        for node in _tree(package).body:
            if isinstance(node, ast.ImportFrom) and name in {alias.asname or alias.name for alias in node.names}:
                return _source(node, package)
    return package


def _source(node: ast.ImportFrom, module: str) -> str:
    """The module that a `from` names, with its leading dots resolved."""
    if not node.level:
        return node.module or ""
    path = _path(module)
    package = module if path and path.name == "__init__.py" else module.rpartition(".")[0]
    return resolve_name("." * node.level + (node.module or ""), package)
