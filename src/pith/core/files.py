"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pith.core.errors import StoreError


def write_whole(path: Path, content: bytes) -> Path:
    """Writes a file so that no reader and no kill ever leaves half of it; returns its path. Its folder is made.

    Raises:
        StoreError: it cannot be written; what stood there before still does.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):  # there may be nothing to take away
            draft.unlink()
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from None
    return path
