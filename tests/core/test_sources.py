"""Which files a value depends on: those that its parameters declare, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pith.core import InputError, Method, Recipe, methods, sources
from pith.core.sources import file_hash, files_of
from pith.study import Question
from pith.tasks import Task, parse_tasks
from pith.tasks.registry import tasks

HIDING = (
    *("needle", "kick_retrieval", "niah", "niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1"),
    *("niah_multikey_2", "niah_multikey_3", "niah_multivalue", "niah_multiquery"),
)
FILES = {
    *(("duo_attention", "gates"), ("gsm8k", "path")),
    *((name, "text") for name in ("perplexity", "sliding_perplexity", "bits_per_byte")),
    *((name, "haystack") for name in HIDING),
}
FOLDERS = {("lm_eval", "include")}


def of_folder(path: Path) -> dict[str, str]:
    [task] = parse_tasks(f"lm_eval(task='one', include={str(path)!r})")
    return files_of(task)


def test_the_parameters_that_are_files() -> None:
    every: list[type[Method] | type[Task]] = [*methods().values(), *tasks().values()]
    found = [(one.name, p) for one in every for p in one.parameters()]
    assert {(name, p.name) for name, p in found if p.file} == FILES
    assert {(name, p.name) for name, p in found if p.folder} == FOLDERS
    assert not [(name, p.name) for name, p in found if "path" in p.doc.split() and not (p.file or p.folder)]


def test_a_folder_that_is_called_as_a_value_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    question = Question("m", (Recipe.parse("snapkv(pooling='max')"),), parse_tasks("needle(query='agnostic')"), {})
    recipe, task = question.recipes[0], question.tasks[0]
    before = question.key(recipe, task), question.key(recipe)
    for name in ("max", "agnostic"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    assert (question.key(recipe, task), question.key(recipe)) == before


@pytest.mark.parametrize("recipe", ["rtn(skip='/usr')", "kvzip(instruction='12')", "rtn(skip=('/proc/kmsg', '/'))"])
def test_other_texts_are_never_opened(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("the disk was read")

    found = Recipe.parse(recipe)
    for name in ("scandir", "walk", "open"):
        monkeypatch.setattr(os, name, refused)
    assert [files_of(method) for method in found] == [{}]


def test_a_declared_file_counts_by_what_it_holds(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("one")
    [task] = parse_tasks(f"perplexity(text={str(text)!r})")
    first = files_of(task)
    assert first == {str(text): file_hash(text)}
    text.write_text("other")
    assert files_of(task) != first


def test_a_device_or_a_folder_as_a_text_is_refused(tmp_path: Path) -> None:
    for path, says in (("/dev/zero", "a device"), ("/proc/kmsg", "/proc"), (str(tmp_path), "it is a folder")):
        [task] = parse_tasks(f"perplexity(text={path!r})")
        with pytest.raises(InputError, match=f"^perplexity: text='{path}' cannot be read: .*{says}"):
            files_of(task)


def test_a_folder_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.yaml", "b.json", "c.png"):
        (tmp_path / name).write_text(name)
    assert sorted(Path(path).name for path in of_folder(tmp_path)) == ["a.yaml", "b.json"]
    for bound, most in (("_FILES", 1), ("_ENTRIES", 2), ("_BYTES", 11)):
        with monkeypatch.context() as patched:
            patched.setattr(sources, bound, most)
            with pytest.raises(InputError, match="too large a folder; allowed are at most"):
                of_folder(tmp_path)


def test_a_link_out_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.yaml").write_text("a")
    (tmp_path / "in" / "b.yaml").symlink_to("a.yaml")
    assert len(of_folder(tmp_path / "in")) == 2
    (tmp_path / "in" / "sub").symlink_to(tmp_path)
    with pytest.raises(InputError, match="'sub' in it is a link to outside"):
        of_folder(tmp_path / "in")


@pytest.mark.parametrize("path", ["/nowhere", "a\0b", "x" * 5000, "~nosuchuser"])
def test_what_is_no_folder_is_refused(path: str) -> None:
    with pytest.raises(InputError, match=r"^lm_eval: include="):
        of_folder(Path(path))
