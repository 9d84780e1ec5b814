"""The house rules, kept by machine."""

from __future__ import annotations

import ast
import doctest
import hashlib
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pith
from pith.core import methods

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "pith"
CODE = sorted(p for room in ("src", "benchmarks", "recipes", "tests") for p in (ROOT / room).rglob("*.py"))
LAYERS = [
    "core", "attention", "weights", "cache", "quantization", "pruning", "models", "tasks", "measure", "predict",
    "study", "search", "report", "cli",
]  # fmt: skip
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[FUNCTION]:
    yield from (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, FUNCTION))


@pytest.mark.parametrize("path", CODE, ids=shown)
def test_files_and_functions_are_short(path: Path) -> None:
    assert path.read_text().count("\n") < 300
    for function in functions(path):
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines < 60, f"{function.name} has {lines} lines"
        arguments = function.args
        count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
        count -= bool(arguments.args) and arguments.args[0].arg in ("self", "cls")
        # the signature of a mask function and of an attention function is Transformers', of a command its options
        if not (path.name == "interface.py" and function.name == "mask") and "cli" not in path.parts:
            assert count <= 8, f"{function.name} takes {count} arguments"


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=shown)
def test_no_public_constructor_takes_kwargs(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            for function in node.body:
                if isinstance(function, FUNCTION) and function.name == "__init__":
                    assert function.args.kwarg is None, f"{node.name} takes **{function.args.kwarg.arg}"


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=shown)
def test_imports_point_down(path: Path) -> None:
    parts = path.relative_to(SOURCE).parts
    room = parts[0] if len(parts) > 1 else None
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            other = name.split(".")[1] if name.startswith("pith.") else None
            if room in LAYERS and other in LAYERS:
                assert LAYERS.index(other) <= LAYERS.index(room), f"{room} imports {name}"


def test_importing_pith_changes_nothing_outside() -> None:
    look = """
import json, logging, os, sys, warnings
import torch, transformers
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface
def state():
    return [
        sorted(AttentionInterface._global_mapping), sorted(AttentionMaskInterface._global_mapping),
        str(torch.get_default_dtype()), torch.get_num_threads(), torch.initial_seed(), torch.is_grad_enabled(),
        len(warnings.filters), sorted(os.environ), logging.getLogger().level, len(logging.getLogger().handlers),
        str(sys.excepthook), sorted(k for k in vars(transformers.DynamicCache)), sorted(vars(torch.nn.Module)),
    ]
before = state()
import pith, pith.cli, pith.study, pith.report
pith.methods()
print(json.dumps([before, state()]))
"""
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert before == after


@pytest.mark.parametrize("name", methods())
def test_a_method_says_where_it_comes_from_and_what_differs(name: str) -> None:
    method = methods()[name]
    assert method.paper.title
    assert method.paper.authors
    assert 2010 < method.paper.year < 2100
    assert re.fullmatch(r"\d{4}\.\d{4,5}|", method.paper.arxiv)
    assert method.doc("summary")
    assert method.doc("formula")
    assert method.doc("deviations")
    assert method.contract
    assert method.question
    assert all(p.doc for p in method.parameters())
    assert name.replace("_", "") == method.__name__.lower()
    module = method.__module__.rpartition(".")[2]
    assert module == name
    assert list((ROOT / "tests").rglob(f"test_{name}.py")), "a method is two files: its own and its test"


def modules() -> list[str]:
    return [m.name for m in pkgutil.walk_packages(pith.__path__, "pith.") if not m.name.endswith("__main__")]


@pytest.mark.parametrize("name", ["pith", *modules()])
def test_docstring_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def pages_with_code() -> dict[str, list[str]]:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = {shown(page): re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL) for page in pages}
    return {page: blocks for page, blocks in found.items() if blocks}


# each block in a file of its own, as a reader would run it (dataclasses ask for their module), and in an empty folder
RUNNER = """
import os, pathlib, runpy, sys
for file in map(pathlib.Path, sys.argv[1:]):
    print(file.parent.name, file=sys.stderr)
    os.chdir(file.parent)
    runpy.run_path(str(file), run_name="__main__")
"""


@pytest.mark.parametrize("page", pages_with_code())
def test_code_in_the_documents_runs(page: str, tmp_path: Path) -> None:
    files = []
    for index, code in enumerate(pages_with_code()[page]):
        file = tmp_path / f"block_{index}" / "example_from_the_documents.py"
        file.parent.mkdir()
        file.write_text(code)
        files.append(str(file))
    command = [sys.executable, "-c", RUNNER, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{page}\n{done.stderr[-2000:]}"


def test_shipped_assets_are_the_ones_that_were_measured() -> None:
    folder = SOURCE / "models" / "builtin"
    listed = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    shipped = {p.name for p in folder.iterdir()} - {"SHA256SUMS"}
    assert shipped == set(listed)
    for name, expected in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected, name


def test_no_page_names_a_path_of_somebodys_machine() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *CODE]:
        found = re.search(r"(?<![\w.<])/(?:home|root|Users|tmp)/\w+", page.read_text())
        assert not found, f"{shown(page)} names {found[0]}"
