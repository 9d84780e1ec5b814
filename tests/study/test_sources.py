from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module, invalidate_caches
from pathlib import Path

import pytest

from pith.core import Recipe, sources
from pith.core.sources import files_of
from pith.study import tasks_with
from pith.study.sources import code_hash

METHOD = '''
"""A method of somebody else's package."""
from dataclasses import dataclass
from pith.attention import Eviction
from . import shared

@dataclass(frozen=True, kw_only=True)
class Mine(Eviction):
    """Keep the first."""
    def score(self, step):
        """What it does."""
        return shared.first(step.keys)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "brought_package"
    folder.mkdir()
    for name, text in {
        "__init__": "",
        "mine": METHOD,
        "shared": "def first(x): return x[0]\n",
        "other": "x = 1\n",
    }.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    invalidate_caches()
    yield folder
    forget()
    for name in [name for name in sys.modules if name.startswith("brought_package")]:
        del sys.modules[name]


def forget() -> None:
    for cached in (sources._hash, sources._code, sources._tree, sources._text, sources._path, sources._imports):
        cached.cache_clear()


def hashed() -> str:
    forget()
    return code_hash(Recipe([import_module("brought_package.mine").Mine()]))


def test_an_edit_of_a_method_or_of_what_it_imports_asks_again(package: Path) -> None:
    before = hashed()
    (package / "mine.py").write_text(METHOD.replace("step.keys", "step.values"))
    edited = hashed()
    (package / "shared.py").write_text("def first(x): return x[1]\n")
    assert len({before, edited, hashed()}) == 3


def test_words_and_other_modules_change_nothing(package: Path) -> None:
    before = hashed()
    (package / "mine.py").write_text(METHOD.replace("Keep the first", "Keep what is first") + "\n# a comment\n")
    (package / "other.py").write_text("x = 2\n")
    assert hashed() == before


def test_a_result_depends_on_its_own_method_and_task_and_on_the_runtime() -> None:
    needle, perplexity = tasks_with("needle,perplexity", {})
    snapkv = Recipe.parse("snapkv")
    hashes = [code_hash(r, t) for r in (snapkv, Recipe.parse("tova")) for t in (needle, perplexity, None)]
    assert len(set(hashes)) == 6
    reached: set[str] = {"pith.attention", "pith.cache.snapkv", "pith.tasks.needle"}
    while more := {name for module in reached for name in sources._imports(module)} - reached:
        reached |= more
    assert {"pith.attention.layer", "pith.attention.eviction", "pith.core.parameters"} <= reached
    assert not [name for name in reached if name.startswith(("pith.study", "pith.report", "pith.cli"))]
    assert "pith.tasks.perplexity" not in reached
    assert "pith.cache.tova" not in reached


def test_a_method_in_a_method_counts() -> None:
    inner = [code_hash(Recipe.parse(f"ada_kv({name})")) for name in ("snapkv", "h2o")]
    assert len({*inner, code_hash(Recipe.parse("snapkv"))}) == 3


def test_the_files_of_a_folder_that_may_be_data_count(tmp_path: Path) -> None:
    for name in ("task.yaml", "data.jsonl", "picture.png"):
        (tmp_path / name).write_text(name)
    [task] = tasks_with(f"lm_eval(task='one', include={str(tmp_path)!r})", {})
    assert sorted(Path(path).name for path in files_of(task)) == ["data.jsonl", "task.yaml"]


def test_a_recipe_that_changes_weights_depends_on_what_makes_the_model() -> None:
    reached: set[str] = {"pith.quantization.rtn", "pith.models.smaller"}
    while more := {name for module in reached for name in sources._imports(module)} - reached:
        reached |= more
    assert {"pith.weights.compressor", "pith.weights.packed", "pith.weights.calibration"} <= reached
    assert "pith.quantization.gptq" not in reached
