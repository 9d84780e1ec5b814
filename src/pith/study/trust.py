"""What of a `run.json` that somebody else may have written is opened, and what it must hold."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pith.core import InputError, Method, Parametrised, Recipe
from pith.core.errors import shown
from pith.core.sources import files_of
from pith.models.locate import NAMES
from pith.models.smaller import reads_texts
from pith.study.database import FILE as RESULTS
from pith.study.record import CALIBRATION, Record
from pith.tasks import Task
from pith.weights import AUTO, PROSE, PYTHON

FLAG = "--trust-files"
"""The option that lets a record name what is opened."""

HASHES = ("model", "tokenizer", "heldout")
"""The hashes that every record holds; where a method reads calibration texts, that of the text follows."""

WRITTEN = (RESULTS, "report.html", "charts", "weights")
"""What a repetition reads or writes in the folder of its record."""

_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def require_trusted(record: Record, recipes: Iterable[Recipe], tasks: Iterable[Task], *, model_named: bool) -> None:
    """Refuse a record that names files or folders: without the user's word for it, none of them is opened.

    A record may come from anyone. It is repeated without further ado where it names the built-in model or one of the
    hub, the built-in calibration text, and methods and tasks that read no files. A folder with task files of
    lm-evaluation-harness is worse than a file: what lies in it can run code.

    Args:
        record: the record.
        recipes, tasks: as `Record.parsed` gives them.
        model_named: whether the user's own command names the model.

    Raises:
        InputError: the record names a file or a folder; the message says which, and the option that allows it.
    """
    if not model_named and is_path(record.model):
        raise InputError(
            f"run.json names the folder {shown(record.model)} as its model: name the model in the command as well "
            f"(pith compare MODEL --from run.json), or allow what run.json names by {FLAG}"
        )
    if record.settings.calibration not in (AUTO, PROSE, PYTHON):
        raise InputError(
            f"run.json names the calibration text {shown(record.settings.calibration)}, which is not opened; if you "
            f"trust whoever wrote run.json, add {FLAG}"
        )
    for value in (*(method for recipe in recipes for method in recipe), *tasks):
        for named, is_folder in _paths(value):
            what = ", and files in it can run code" if is_folder else ""
            raise InputError(
                f"run.json names {value.name}({named}), which is not opened{what}; if you trust whoever wrote "
                f"run.json, add {FLAG}"
            )


def require_complete(record: Record, recipes: Iterable[Recipe], tasks: Iterable[Task]) -> None:
    """Make sure that a record has every hash that it should have, and that the files are those it was made with.

    Opened are the files that methods and tasks of the record read, and no others.

    Raises:
        InputError: a hash is missing or one too many, or a file is missing or holds something else.
    """
    recipes = tuple(recipes)
    wanted = {*HASHES, *([CALIBRATION] if any(map(reads_texts, recipes)) else [])}
    if wanted != set(record.hashes):
        missing, more = sorted(wanted - set(record.hashes)), sorted(set(record.hashes) - wanted)
        what = f"no hash of the {missing[0]}" if missing else f"a hash of {shown(more[0])}, which nothing has"
        raise InputError(f"run.json is incomplete: it has {what}; allowed are {', '.join(sorted(wanted))}")
    read: dict[str, str] = {}
    for value in (*(method for recipe in recipes for method in recipe), *tasks):
        read |= files_of(value)
    for path, found in read.items():
        if path not in record.files:
            raise InputError(f"run.json is incomplete: it has no hash of {shown(path)}, which is read")
        if found != record.files[path]:
            raise InputError(f"{shown(path)} is not what it was in the run that is repeated: its hash differs")
    if left := sorted(set(record.files) - set(read)):
        raise InputError(
            f"run.json has a hash of {shown(left[0])}, which is not among the files that its tasks and methods read"
        )


def require_own_files(folder: Path) -> None:
    """Refuse a folder whose results, page, charts or weights are links: what is written would land elsewhere.

    Raises:
        InputError: one of them is.
    """
    for name in WRITTEN:
        if (folder / name).is_symlink():
            raise InputError(f"{folder / name} is a link to elsewhere; name another folder by --out, or add {FLAG}")


def is_path(model: str) -> bool:
    """Return whether a model's name is, or can only be, a path on this machine: no name of Pith's and no hub id."""
    return model not in NAMES and (_HUB.fullmatch(model) is None or model.startswith(".") or os.path.exists(model))


def _paths(value: Parametrised) -> Iterator[tuple[str, bool]]:
    """Yield what a method or a task, and the methods in it, name to be opened, and whether it is a folder."""
    for parameter in value.parameters():
        inner = getattr(value, parameter.name)
        if isinstance(inner, Method):
            yield from _paths(inner)
        elif inner and (parameter.file or parameter.folder):
            yield f"{parameter.name}={shown(inner)}", parameter.folder
