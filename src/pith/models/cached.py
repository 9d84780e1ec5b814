"""The folder in which Pith keeps what it downloads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pith.core import ModelError, resolve_path
from pith.core.files import read_json
from pith.core.folders import marker_kind

ORIGIN = "pith-origin.json"
"""The file that says where the model in its folder came from."""


def cache_folder() -> Path:
    """Return the folder for downloads: `PITH_CACHE`, else `pith` in `XDG_CACHE_HOME` or in `~/.cache`.

    Raises:
        InputError: a variable names what cannot be a folder.
    """
    if own := os.environ.get("PITH_CACHE"):
        return resolve_path(own, label="PITH_CACHE ")
    shared = os.environ.get("XDG_CACHE_HOME", "")
    return resolve_path(Path(shared if os.path.isabs(shared) else "~/.cache") / "pith", label="the cache folder ")


def model_folder(name: str) -> Path:
    """Return the folder of a packaged model, whether it is there or not."""
    return cache_folder() / "models" / name


def fetched_folder(name: str) -> Path | None:
    """Return the folder of a packaged model that is there; None if it is not."""
    folder = model_folder(name)
    return folder if marker_kind(folder) == "kept" else None


def origin(folder: Path) -> dict[str, Any]:
    """Return where a fetched model came from; empty if that cannot be read."""
    try:
        return read_json(folder / ORIGIN, error=ModelError)
    except ModelError:
        return {}
