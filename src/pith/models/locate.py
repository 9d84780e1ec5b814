"""Finding what a model's name means: the built-in model, a packaged one, a folder, a GGUF file, or a hub id."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pith.core import ModelError, shown, user_path
from pith.models.cached import fetched_folder
from pith.models.files import gguf_in, require_weights
from pith.models.packages import PACKAGED

BUILTIN = "builtin"
"""The name of the model that comes inside the package."""

NAMES = (BUILTIN, *PACKAGED)
"""The names that Pith gives to models. They go before folders of the same name, which `./NAME` means."""

_FOLDER = Path(__file__).parent / "builtin"
_HUB_SECONDS = 10
_ALLOWED = "allowed are a name of `pith models`, a model's folder, a GGUF file, or a hub id"


@dataclass(frozen=True)
class Place:
    """Where the files of a model are.

    Attributes:
        source: a folder, or a hub id.
        offline: whether only files on this machine can be had.
        gguf: the GGUF file in the folder that holds the model; None if it is a Transformers checkpoint.
        fetched: whether `pith models get` made the folder, which then has a hash of every file.
    """

    source: str
    offline: bool
    gguf: str | None = None
    fetched: bool = False

    @property
    def folder(self) -> Path | None:
        """The folder with a Transformers checkpoint; None for a GGUF file or a hub id."""
        return Path(self.source) if self.gguf is None and Path(self.source).is_dir() else None

    @property
    def options(self) -> dict[str, Any]:
        """What `from_pretrained` is called with."""
        found: dict[str, Any] = {"local_files_only": self.offline, "trust_remote_code": False}
        return found if self.gguf is None else found | {"gguf_file": self.gguf}


def is_local(name: str) -> bool:
    """Return whether a model's name is a path that is there, and not one of `NAMES`."""
    return name not in NAMES and os.path.exists(name)


def locate(name: str) -> Place:
    """Return where the files of a model are.

    Raises:
        ModelError: there is no such model, its files are incomplete, or it is a packaged one that is not here or is an
            embedder.
    """
    if name == BUILTIN:
        return Place(str(_FOLDER), True)
    if name in PACKAGED:
        return _packaged(name)
    path = user_path(name, label="model ", error=ModelError)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise ModelError(f"model {shown(name)} cannot be read: {error.strerror or error}") from None
    if name and is_folder:
        gguf = gguf_in(path)
        if gguf is None:
            require_weights(path)
        return Place(str(path), True, gguf)
    if is_file and path.suffix.lower() == ".gguf":
        return Place(str(path.parent), True, path.name)
    if is_file:
        raise ModelError(f"{name} is a file, and not a GGUF file; {_ALLOWED}{_folder_hint(path)}")
    if path.suffix.lower() == ".gguf":
        raise ModelError(f"there is no file {name!r}; {_ALLOWED}")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise ModelError(f"there is no folder {name!r}; {_ALLOWED}")
    return Place(name, not _hub_has(name))


def _packaged(name: str) -> Place:
    model = PACKAGED[name]
    if model.kind == "embedder":
        raise ModelError(
            f"{name} is an embedder ({model.hub.rpartition('/')[2]}, an encoder without a language-model head); this "
            "needs a causal language model, such as builtin or smollm2"
        )
    folder = fetched_folder(name)
    if folder is None:
        raise ModelError(f"{name} is not on this machine; get it with: {model.get}")
    return Place(str(folder), True, fetched=True)


def _folder_hint(path: Path) -> str:
    """Return the folder to name instead of one of its files."""
    return f" ({path.parent} is one)" if (path.parent / "config.json").is_file() else ""


def _hub_has(name: str) -> bool:
    """Return whether the hub has the model; False where it cannot be asked.

    One question with a time limit: Transformers would ask for every file, and each of them six times.
    """
    from huggingface_hub import model_info
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        model_info(name, timeout=_HUB_SECONDS)
    except HFValidationError:
        raise ModelError(f"{name!r} is neither a folder nor a hub id such as 'Qwen/Qwen3-0.6B'") from None
    except RepositoryNotFoundError:
        raise ModelError(f"{name!r} is no folder here, and the hub has no such model, or not for you") from None
    except Exception:  # offline, no route, the hub is down: what was downloaded before will do
        return False
    return True
