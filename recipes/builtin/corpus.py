"""Training text: the CPython standard library's own sources, and the prose inside them."""

import ast
import re
import sysconfig
from pathlib import Path

_EXCLUDED = {"site-packages", "pydoc_data", "encodings", "__pycache__", "lib2to3", "turtledemo"}
_COMMENTS = re.compile(r"(?:^[ \t]*#[^\n]*\n){2,}", re.MULTILINE)
_HASH = re.compile(r"^[ \t]*#+ ?", re.MULTILINE)


def _prose(source: str) -> str:
    """Extract docstrings and comment blocks of a source file as plain paragraphs."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, holders)]
    comments = [_HASH.sub("", block.group()) for block in _COMMENTS.finditer(source)]
    return "\n\n".join(text.strip() for text in docs + comments if len(text) > 60)


def load_corpus() -> dict[str, list[str]]:
    """Read the running interpreter's standard library.

    Returns:
        Lists of documents under ``"prose"`` (docstrings, comment blocks, text files), ``"source"``
        (modules) and ``"tests"`` (its test suite). ``pydoc_data`` is excluded: it is held out.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    corpus: dict[str, list[str]] = {"prose": [], "source": [], "tests": []}
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.suffix not in {".py", ".txt", ".rst"} or _EXCLUDED.intersection(parts):
            continue
        try:
            text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:
            continue
        is_test = bool({"test", "tests", "idle_test"}.intersection(parts))
        if path.suffix != ".py":
            if not is_test:
                corpus["prose"].append(text)
            continue
        if max(map(len, text.splitlines() or [""])) > 400:
            continue  # data tables teach nothing about language
        corpus["tests" if is_test else "source"].append(text)
        prose = _prose(text)
        if len(prose) > 100:
            corpus["prose"].append(prose)
    return corpus
