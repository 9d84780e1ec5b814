"""Folders that Pith writes: whole or not at all, with a SHA-256 of every file, and never in the place of another's.

Two markers tell Pith's own folders from all others. `MANIFEST` lists the files of a model that is complete; `WORK`
lies in a folder of unfinished work, and in the one in which a model is written before it is put in its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from pith.core.errors import InputError, ModelError
from pith.core.files import open_file, read_json

MANIFEST = "pith-manifest.json"
"""The file with the hashes of a folder's files."""

WORK = "pith-unfinished.json"
"""The marker of folders that Pith removes when the work in them is done."""

LOCK = ".pith.lock"
"""The file that a process locks while it works in a folder that `WORK` marks."""

Kind = Literal["model", "kept"]
"""What a manifest describes: a model that the user asked for, or one that Pith keeps and can make again."""


def write_manifest(folder: Path, kind: Kind, names: Iterable[str] | None = None) -> None:
    """Write the SHA-256 of files of a folder into its manifest, in place of an earlier one.

    Args:
        folder: the folder.
        kind: what it holds.
        names: the files; None means every file in it.

    Raises:
        OSError: a file cannot be read or written.
    """
    files = {name: _sha256(folder / name) for name in sorted(names or _names(folder))}
    text = json.dumps({"pith": 1, "kind": kind, "files": files}, indent=2)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def marker_kind(folder: Path) -> Literal["model", "kept", "unfinished"] | None:
    """Return which of Pith's markers a folder carries; None if it carries none, or is a link."""
    if folder.is_symlink() or not folder.is_dir():
        return None
    if _marker(folder / WORK) is not None:
        return "unfinished"
    kind = (_marker(folder / MANIFEST) or {}).get("kind")
    return kind if kind in ("model", "kept") else None


def require_whole(folder: Path, needed: tuple[str, ...] = ("config.json",), exact: bool = False) -> None:
    """Compare every file that a folder's manifest lists with its hash; files are read once.

    Args:
        folder: the folder.
        needed: files that the manifest must list, if they are there.
        exact: whether the folder must have a manifest, and no file that it does not list.

    Raises:
        ModelError: a file was changed or is missing, or the manifest is damaged or incomplete.
    """
    if not exact and not os.path.lexists(folder / MANIFEST):
        return
    files = (_marker(folder / MANIFEST, links=not exact) or {}).get("files")
    if not isinstance(files, dict) or not all(isinstance(one, str) for one in files.values()):
        raise ModelError(
            f"{MANIFEST} of {folder} is missing or damaged; nothing else tells whether its files are whole"
        )
    there, hint = _names(folder), "" if exact else "; delete the manifest if that is meant"
    unlisted = sorted((there if exact else there & set(needed)) - set(files))
    if unlisted:
        raise ModelError(f"{MANIFEST} of {folder} has no hash of {unlisted[0]}{hint}")
    for name, expected in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"{MANIFEST} of {folder} names {name[:60]!r}, which is not a file of that folder")
        if _sha256(folder / name) != expected:
            raise ModelError(f"{name} of {folder} is damaged or was changed: {MANIFEST} has another hash{hint}")


@contextmanager
def verified(folder: Path, needed: tuple[str, ...] = ("config.json",), exact: bool = False) -> Iterator[None]:
    """Compare the files of a folder with their hashes while the block reads them, as `require_whole` does.

    Args:
        folder, needed, exact: as of `require_whole`.

    Raises:
        ModelError: as of `require_whole`, at the end of the block, and instead of whatever the block raised.
    """
    with ThreadPoolExecutor(1) as pool:  # hashing lets other threads run
        whole = pool.submit(require_whole, folder, needed, exact)
        try:
            yield
        except Exception:
            whole.result()
            raise
        whole.result()


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to write into, which takes its place at the end; after an error nothing of it is left.

    It is made beside its place under a name of its own, so that nothing that exists is ever touched.

    Args:
        folder: its place; nothing may be there but an empty folder.

    Raises:
        OSError: it cannot be written, or something was put into its place meanwhile.
    """
    absent = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with draft_folder(folder.parent, folder.name) as draft:
            yield draft
            os.replace(draft, folder)
    finally:
        for parent in absent:  # the innermost first; only those that are empty again can be removed
            with suppress(OSError):
                parent.rmdir()


@contextmanager
def draft_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new folder inside a marked one, which is made under a unique name and removed at the end.

    Raises:
        OSError: it cannot be written.
    """
    made = Path(tempfile.mkdtemp(prefix=f"{name[:50]}.", suffix=".draft", dir=parent))
    try:
        _mark(made)
        with FileLock(made / LOCK).acquire(timeout=0):
            (made / "model").mkdir()  # mkdtemp makes folders that only their owner may read
            yield made / "model"
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def unfinished_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder for the finished parts of a long work; it is removed at the end, and kept after an error.

    After an error that left no part in it, it is removed too.

    Raises:
        InputError: something that Pith did not make is there, another process works in it, or it cannot be written.
    """
    found = os.path.lexists(folder)
    if found and marker_kind(folder) != "unfinished":
        raise InputError(f"{folder} is not Pith's own, which keeps unfinished work under that name; take another name")
    lock = FileLock(folder / LOCK)
    try:
        if not found:
            _make_marked(folder)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another process works in {folder}; wait for it, or take another name") from None
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from None
    done = False
    try:
        yield folder
        done = True
    finally:
        if done or _names(folder) <= {WORK, LOCK}:
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def own_folders(root: Path) -> Iterator[tuple[Path, Literal["kept", "unfinished"]]]:
    """Yield the folders under a root that Pith may remove: kept models, and unfinished work. Links are not followed."""
    for name, inside, _ in os.walk(root, followlinks=False):
        kind = marker_kind(Path(name))
        if kind in ("kept", "unfinished"):
            yield Path(name), kind
            inside.clear()
        inside.sort()


def lock_of(folder: Path) -> FileLock:
    """Return the lock that a process holds while it uses a folder of Pith's."""
    inside = marker_kind(folder) == "unfinished"
    return FileLock(folder / LOCK if inside else folder.with_name(f".{folder.name}.lock"))


def remove_own(folder: Path) -> bool:
    """Remove a folder of Pith's unless a process uses it; return whether it was removed.

    Raises:
        InputError: the folder carries no marker of what Pith may remove, or it cannot be removed.
    """
    if marker_kind(folder) not in ("kept", "unfinished"):
        raise InputError(f"{folder} carries no marker of Pith; nothing else is ever removed")
    try:
        with (lock := lock_of(folder)).acquire(timeout=0):
            shutil.rmtree(folder)
            Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        return False
    except OSError as error:
        raise InputError(f"{folder} cannot be removed: {error.strerror or error}") from None
    return True


def _names(folder: Path) -> set[str]:
    """Return the files of a folder, as paths in it, without its manifest."""
    return {one.relative_to(folder).as_posix() for one in folder.rglob("*") if not one.is_dir()} - {MANIFEST}


def _make_marked(folder: Path) -> None:
    """Make a folder that carries its marker from the first moment on, so that no kill leaves one without."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = folder.with_name(f"{folder.name[:50]}.{secrets.token_hex(8)}")
    try:
        made.mkdir()
        _mark(made)
        os.rename(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _mark(folder: Path) -> None:
    (folder / WORK).write_text(json.dumps({"pith": 1, "kind": "unfinished"}), encoding="utf-8")


def _marker(path: Path, links: bool = False) -> dict[str, Any] | None:
    """Return what a marker holds; None if it is none of Pith's. Those of downloaded folders are links."""
    with suppress(ModelError):
        if links or not path.is_symlink():
            found = read_json(path, error=ModelError)
            return found if found.get("pith") == 1 else None
    return None


def _sha256(path: Path) -> str:
    with open_file(path, limit=None, error=ModelError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it has readinto
