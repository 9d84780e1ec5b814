"""What code and which files a value depends on, as short hashes."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from pith.core.errors import InputError, shown
from pith.core.files import is_folder, read_bytes, require_file, user_path
from pith.core.parameters import Parametrised
from pith.core.words import bytes_

_DATA = (".json", ".jsonl", ".md", ".py", ".safetensors", ".txt", ".yaml", ".yml")
"""The suffixes of what a task may read from a folder that one of its parameters names."""

_ENTRIES, _FILES, _BYTES = 20_000, 1000, 2**30
"""The most entries of such a folder, the most files with such a suffix among them, and the most bytes of these."""


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
    """Return the SHA-256 of every file that a parameter of a task or a method names, by its path.

    Only parameters that are declared with `param(..., file=True)` or `folder=True` are paths; nothing else is opened.
    Of a folder it is the files in it that may be data or settings of a task.

    Raises:
        InputError: a file is missing or is not a regular file of at most 256 MiB, or a folder has too many or too
            large files, or a link that leads out of it.
    """
    found: dict[str, str] = {}
    for one in _within(value):
        for parameter in one.parameters():
            path, label = getattr(one, parameter.name), f"{one.name}: {parameter.name}="
            if path and parameter.file:
                found[str(Path(path))] = file_hash(path, label)
            elif path and parameter.folder:
                found |= folder_hashes(path, label)
    return found


def folder_hashes(path: str | Path, label: str = "") -> dict[str, str]:
    """Return the SHA-256 of every file in a folder that may be data or settings of a task, by its path.

    Args:
        path: the folder.
        label: what it is, for the message.

    Raises:
        InputError: as of `files_of`.
    """
    return {str(file): file_hash(file, label) for file in _data(path, label)}


def file_hash(path: str | Path, label: str = "") -> str:
    """Return the SHA-256 of a regular file of at most 256 MiB.

    Args:
        path: the file.
        label: what it is, for the message.

    Raises:
        InputError: it cannot be read.
    """
    state = require_file(path, label=label).stat()
    return _file_hash(str(path), label, state.st_size, state.st_mtime_ns)


@cache  # every recipe of a comparison asks
def _file_hash(path: str, label: str, size: int, changed: int) -> str:
    return hashlib.sha256(read_bytes(path, label=label)).hexdigest()


def _data(path: str | Path, label: str) -> list[Path]:
    """Return the files below a folder that a task may read, sorted.

    Raises:
        InputError: it is not a folder, has more files or bytes than allowed, or a link that leads out of it.
    """
    root, given = user_path(path, label=label), f"{label}{shown(path, 100)}"
    if not is_folder(root):
        raise InputError(f"{given} is not a folder; allowed is one that can be read")
    found: list[Path] = []
    home, seen, size = os.path.realpath(root), 0, 0
    for place, folders, names in os.walk(root):
        for name in (*folders, *names):
            file = Path(place, name)
            seen += 1
            if file.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(home):
                raise InputError(f"{given} is not read: {shown(name, 60)} in it is a link to outside; copy it instead")
            if name in names and file.suffix in _DATA:
                found.append(file)
                size += file.stat().st_size if file.is_file() else 0
            if seen > _ENTRIES or len(found) > _FILES or size > _BYTES:
                allowed = f"{_FILES:,} data files of {bytes_(_BYTES)} among {_ENTRIES:,} entries"
                raise InputError(f"{given} is not read: it is too large a folder; allowed are at most {allowed}")
    return sorted(found)


def _within(value: Parametrised) -> Iterator[Parametrised]:
    """A method or a task, and the methods that its parameters are."""
    yield value
    for parameter in value.parameters():
        inner: Any = getattr(value, parameter.name)
        if isinstance(inner, Parametrised):
            yield from _within(inner)


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
