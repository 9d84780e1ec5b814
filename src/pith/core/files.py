"""Reading the files that a user names, and writing files whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from pith.core.errors import InputError, PithError, StoreError, shown
from pith.core.words import bytes_

TEXTS = 256 * 2**20
"""Bytes of a text, of a JSON Lines file and of any other file that is read as data, at most."""

SETTINGS = 16 * 2**20
"""Bytes of a file with settings, such as a recipe, a configuration or a record, at most."""

_VIRTUAL = ("/proc", "/sys")
"""Folders whose files are views of the kernel: their sizes are not known, and reading one may block."""

_WRONG_PATH = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENAMETOOLONG: "the path is too long",
    errno.ELOOP: "its links lead in a circle",
}


def user_path(path: str | Path, *, label: str = "", error: type[PithError] = InputError) -> Path:
    """Return a path that a user gave, with `~` and `~user` replaced by the home folder.

    Args:
        path: the path.
        label: what the path is, for the message, such as `"calibration text "`.
        error: what is raised.

    Raises:
        PithError: as `error` says: no user has that name, or no path can look like that or be that long.
    """
    try:
        found = Path(path).expanduser()
        encoded = os.fsencode(found)
    except RuntimeError:  # of expanduser
        raise _unreadable(label, path, "there is no such user", error) from None
    except ValueError:
        raise _unreadable(label, path, "the path holds characters that are not allowed", error) from None
    if b"\0" in encoded:
        raise _unreadable(label, path, "the path holds a NUL character", error)
    try:
        os.lstat(encoded)
    except OSError as failure:
        if failure.errno == errno.ENAMETOOLONG:
            raise _unreadable(label, path, _reason(failure), error) from None
    return found


def resolve_path(path: str | Path, *, label: str = "", error: type[PithError] = InputError) -> Path:
    """Return a path that a user gave as an absolute one without links; see `user_path`.

    Raises:
        PithError: as `error` says: as `user_path`, or its links lead in a circle, or a folder may not be searched.
    """
    found = user_path(path, label=label, error=error)
    try:
        return found.resolve()
    except RuntimeError:  # of a circle
        raise _unreadable(label, path, _WRONG_PATH[errno.ELOOP], error) from None
    except OSError as failure:
        raise _unreadable(label, path, _reason(failure), error) from None


def require_file(
    path: str | Path, *, limit: int | None = TEXTS, label: str = "", error: type[PithError] = InputError
) -> Path:
    """Return the path of a regular file of bounded size; it is not opened.

    Args:
        path: the path; `~` is the home folder.
        limit: bytes that are allowed, at most; None for a file of any size.
        label: what the file is, for the message.
        error: what is raised.

    Raises:
        PithError: as `error` says: the file is missing, may not be read, is a folder, a pipe, a device or a file of
            `/proc` or `/sys`, or is too large; or the path is not a path.
    """
    found = user_path(path, label=label, error=error)
    try:
        state, real = found.stat(), os.path.realpath(found)
    except OSError as failure:
        raise _unreadable(label, path, _reason(failure), error) from None
    if (why := _refusal(state, limit)) or any(Path(real).is_relative_to(folder) for folder in _VIRTUAL):
        raise _unreadable(label, path, why or "files of /proc and /sys are not read", error)
    return found


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder that may be listed; False for whatever cannot be a path."""
    try:
        return path.is_dir() and os.access(path, os.R_OK | os.X_OK)
    except (OSError, ValueError):
        return False


def open_file(
    path: str | Path, *, limit: int | None = TEXTS, label: str = "", error: type[PithError] = InputError
) -> BinaryIO:
    """Return a regular file of bounded size, opened for reading; it never blocks on a pipe or a device.

    Args:
        path, limit, label, error: as of `require_file`.

    Raises:
        PithError: as of `require_file`.
    """
    found = require_file(path, limit=limit, label=label, error=error)
    try:
        file = os.fdopen(os.open(found, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    except OSError as failure:
        raise _unreadable(label, path, _reason(failure), error) from None
    if why := _refusal(os.fstat(file.fileno()), limit):  # it may have been replaced since
        file.close()
        raise _unreadable(label, path, why, error)
    return file


def read_bytes(path: str | Path, *, limit: int = TEXTS, label: str = "", error: type[PithError] = InputError) -> bytes:
    """Return what a regular file of bounded size holds.

    Args:
        path, limit, label, error: as of `require_file`.

    Raises:
        PithError: as of `require_file`.
    """
    with open_file(path, limit=limit, label=label, error=error) as file:
        try:
            content = file.read(limit + 1)
        except OSError as failure:
            raise _unreadable(label, path, _reason(failure), error) from None
    if len(content) > limit:  # it has grown since
        raise _unreadable(label, path, _too_large(len(content), limit), error)
    return content


def read_text(path: str | Path, *, limit: int = TEXTS, label: str = "", error: type[PithError] = InputError) -> str:
    """Return the text of a file in UTF-8, without the byte order mark that some editors write before it.

    Line breaks are `\\n`, whatever the file has.

    Args:
        path, limit, label, error: as of `require_file`.

    Raises:
        PithError: as of `require_file`, or the file is not UTF-8.
    """
    content = read_bytes(path, limit=limit, label=label, error=error)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise _unreadable(label, path, f"it is not UTF-8 (byte {failure.start})", error) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(
    path: str | Path, *, limit: int = SETTINGS, label: str = "", error: type[PithError] = InputError
) -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        path, limit, label, error: as of `require_file`.

    Raises:
        PithError: as of `read_text`, or the file is not JSON, is nested too deeply, or holds no object.
    """
    try:
        found = json.loads(read_text(path, limit=limit, label=label, error=error))
    except ValueError as failure:
        place = isinstance(failure, json.JSONDecodeError) and f"line {failure.lineno}: {failure.msg}"
        why = place or "a number has too many digits"
        raise _unreadable(label, path, f"it is not JSON ({why})", error) from None
    except (RecursionError, MemoryError):
        raise _unreadable(label, path, "it is nested too deeply", error) from None
    if not isinstance(found, dict):
        raise _unreadable(label, path, f"it holds a JSON {type(found).__name__}, not an object", error)
    return found


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file so that no reader and no kill ever leaves half of it; return its path. Its folder is made.

    It is first written under a unique name beside its path, which no other file has.

    Raises:
        StoreError: it cannot be written; what was there before still is.
    """
    draft, made = path.with_name(f"{path.name[:50]}.{secrets.token_hex(8)}.tmp"), False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("xb") as file:
            made = True
            file.write(content)
        draft.replace(path)
    except (OSError, ValueError) as error:  # of a NUL, or of characters that no path can hold
        raise StoreError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        if made:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
    return path


def _unreadable(label: str, path: str | Path, why: str, error: type[PithError]) -> PithError:
    return error(f"{label}{shown(str(path), 120)} cannot be read: {why}")


def _refusal(state: os.stat_result, limit: int | None) -> str:
    """Return why what lies at a path is not read; empty where it is a regular file of an allowed size."""
    if stat.S_ISDIR(state.st_mode):
        return "it is a folder; allowed is a file"
    if not stat.S_ISREG(state.st_mode):
        return "it is a pipe, a device or a socket; allowed is a regular file"
    return _too_large(state.st_size, limit) if limit is not None and state.st_size > limit else ""


def _too_large(size: int, limit: int) -> str:
    return f"it has {bytes_(size)}; allowed are at most {bytes_(limit)}"


def _reason(failure: OSError) -> str:
    return _WRONG_PATH.get(failure.errno or 0, failure.strerror or str(failure))
