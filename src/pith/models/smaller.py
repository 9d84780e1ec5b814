"""The model whose weights a recipe has changed: made once, and kept for as long as it may be asked for again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from pith.core import ModelError, PithWarning, Recipe, StoreError
from pith.core.folders import lock_of, marker_kind, new_folder, unfinished_folder, verified, write_manifest
from pith.core.notes import noted
from pith.core.sources import code_of, files_of
from pith.models.load import Loaded, model_in
from pith.models.positions import require_positions
from pith.models.quiet import quiet
from pith.models.subject import Subject
from pith.weights.calibration import Calibration, Progress
from pith.weights.compressor import compress
from pith.weights.folder import write_files
from pith.weights.model_hash import model_hash, tokenizer_hash
from pith.weights.standin import stand_ins
from pith.weights.writing import write_errors

IN_MEMORY = 2
"""So many smaller models of one loaded model stay in memory, those that were asked for last."""

NOTES = "notes.json"
"""What was said when a kept model was made; it stands in its folder."""


@dataclass(frozen=True)
class Made:
    """A smaller model, and what was said when it was made.

    Attributes:
        model: the smaller model.
        notes: the texts of the warnings.
    """

    model: Any
    notes: tuple[str, ...]


_MADE: WeakKeyDictionary[Any, OrderedDict[Any, Made]] = WeakKeyDictionary()
"""By the model that came in, which they never hold fast: they share its tensors, not its modules."""


def subject(loaded: Loaded, recipe: Recipe, progress: Progress | None = None) -> Subject:
    """What is examined: the model, with what the recipe changes of its weights, and what of it acts later.

    Args, raises: as of `smaller`.
    """
    rest = recipe.rest
    return Subject(smaller(loaded, recipe, progress), loaded.tokenizer, rest if len(rest) else None)


def smaller(loaded: Loaded, recipe: Recipe, progress: Progress | None = None) -> Any:
    """The model with those methods of a recipe applied that change weights; the model itself where none does.

    The last few are kept in memory, and all of them in a folder where `loaded` names one, so that another process, or
    the same one after it was stopped, loads what is there. What was warned of when the model was made is warned of
    whenever it is given out.

    Args:
        loaded: the model, where calibration texts come from, and where models are kept.
        recipe: the recipe; what acts later plays no part.
        progress: told how a method goes on.

    Raises:
        InputError: the calibration text cannot be read, or is too short; or the model cannot read its sequences.
        ModelError: a method cannot take the model; the message says why.
        StoreError: the folder cannot be written.
    """
    weights = recipe.weights
    if not len(weights):
        return loaded.model
    models = _MADE.setdefault(loaded.model, OrderedDict())
    asked = (str(weights), loaded.source)
    if asked not in models:
        models[asked] = _kept(loaded, weights, progress)
        while len(models) > IN_MEMORY:
            models.popitem(last=False)
    models.move_to_end(asked)
    for note in models[asked].notes:
        warnings.warn(note, PithWarning, stacklevel=2)
    return models[asked].model


def reads_texts(recipe: Recipe) -> bool:
    """Whether a method of a recipe reads calibration texts."""
    return any(getattr(method, "calibrated", False) for method in recipe.weights)


def folder_of(loaded: Loaded, recipe: Recipe) -> Path | None:
    """Where the smaller model of a recipe is kept, or would be; None where none is.

    The name covers all that the model depends on: the model that comes in and its tokenizer, the methods and their
    code, the files that they read, and the calibration.

    Raises:
        InputError: the calibration text cannot be read.
    """
    if loaded.kept is None:
        return None
    weights = recipe.weights
    said = {
        "model": model_hash(loaded.model),
        "tokenizer": tokenizer_hash(loaded.tokenizer),
        "recipe": str(weights),
        "files": [sorted(files_of(method).items()) for method in weights],
        "code": code_of(weights, [__name__]),
        "calibration": loaded.source.identity(loaded.tokenizer) if reads_texts(weights) else None,
    }
    short = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
    return loaded.kept / "-".join([*(method.name for method in weights), short])


def save(made: Any, tokenizer: Any, folder: Path, notes: tuple[str, ...] = ()) -> None:
    """Write a smaller model into a folder of its own, whole or not at all; `pith.load` reads it.

    Raises:
        StoreError: it cannot be written; nothing of it is left.
    """
    with write_errors(folder, StoreError), new_folder(folder) as draft, quiet():
        if stand_ins(made):
            write_files(made, draft)
        else:
            made.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        (draft / NOTES).write_text(json.dumps(notes), encoding="utf-8")
        write_manifest(draft, "kept")


def _kept(loaded: Loaded, weights: Recipe, progress: Progress | None) -> Made:
    """The smaller model out of its folder, or made and put there; made only where nothing is kept."""
    folder = folder_of(loaded, weights)
    if folder is None:
        return made(loaded, weights, progress, None)
    with _alone(folder):  # what another process makes is waited for, not made twice
        if os.path.lexists(folder):
            try:
                return _read(loaded, folder)
            except ModelError as error:
                _give_way(folder, str(error))
        with unfinished_folder(folder.with_name(f"{folder.name}.unfinished")) as unfinished:
            new = made(loaded, weights, progress, unfinished)
            save(new.model, loaded.tokenizer, folder, new.notes)
        return new


def _give_way(folder: Path, reason: str) -> None:
    """Remove a damaged folder of kept weights; one without a manifest, which Pith may not have made, is renamed.

    Raises:
        StoreError: it cannot be removed or renamed.
    """
    try:
        if marker_kind(folder) == "kept":
            shutil.rmtree(folder)
            where = ""
        else:
            aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".old", dir=folder.parent)) / folder.name
            folder.rename(aside)
            where = f" (that folder is now {aside})"
    except OSError as error:
        raise StoreError(f"the damaged folder {folder} cannot be removed: {error.strerror or error}") from None
    warnings.warn(f"kept weights are made again: {reason}{where}", PithWarning, stacklevel=2)


def made(loaded: Loaded, weights: Recipe, progress: Progress | None, unfinished: Path | None) -> Made:
    """The smaller model, made now; unfinished work is kept in a folder, if one is given.

    Raises:
        InputError, ModelError: as of `smaller`.
    """
    texts = replace(Calibration.none(), progress=progress, folder=unfinished)
    if reads_texts(weights):
        length = loaded.source.length
        require_positions(loaded.model, length, f"a calibration sequence of {length} tokens")
        texts = loaded.source.calibration(loaded.tokenizer, progress, unfinished)
    with noted() as notes:
        model = compress(loaded.model, weights, texts)
    return Made(model, tuple(notes))


def _read(loaded: Loaded, folder: Path) -> Made:
    """Return the model in a folder of kept weights, every file of which is compared with its hash.

    Raises:
        ModelError: a file was changed, is missing or was never kept.
    """
    with verified(folder, exact=True):
        try:
            notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{NOTES} of {folder} cannot be read: {error}") from None
        return Made(model_in(folder).to(loaded.model.device).eval(), tuple(notes))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process makes the model of this folder meanwhile; a lock ends with the process that holds it.

    Raises:
        StoreError: something cannot be written.
    """
    lock = lock_of(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()
