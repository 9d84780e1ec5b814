"""`pith clean`: unfinished work and kept weights are shown, and removed."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = "pith clean results --dry-run"

KINDS = {"kept": "kept weights", "unfinished": "unfinished work"}
"""What the kinds of folders are called."""


@dataclass(frozen=True)
class Options:
    """The command's options."""

    folders: Annotated[
        list[Path] | None, typer.Argument(help="The folders to search, with all in them. Default: the current one.")
    ] = None
    yes: Annotated[bool, typer.Option("--yes", help="Remove without a question.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False


def run(options: Options) -> None:
    """Remove unfinished work and kept weights, after showing them.

    Only folders with Pith's own marker file are found: work that was stopped, the models that pith compare keeps, which
    are made again when they are needed, and those that pith models get brought. No link is followed, models that pith
    apply wrote are never removed, and what another process uses is left.
    """
    from pith.cli.command import say
    from pith.core.folders import remove_own
    from pith.core.words import bytes_

    found = list(_found(options.folders or [Path()]))
    for folder, kind, size in found:
        print(f"{bytes_(size):>10}  {KINDS[kind]:<15}  {folder}")
    total = f"{len(found)} folder{'s' if len(found) != 1 else ''}, {bytes_(sum(size for *_, size in found))}"
    if not found or options.dry_run:
        say(f"{total}; nothing was removed" if found else "there is nothing to remove")
        return
    if not options.yes and not _agreed(f"remove {total}?"):
        say("nothing was removed")
        return
    freed = 0
    for folder, _, size in found:
        if remove_own(folder):
            freed += size
        else:
            say(f"note: {folder} is left: another process uses it")
    say(f"{bytes_(freed)} removed")


def _found(roots: list[Path]) -> Iterator[tuple[Path, str, int]]:
    """Yield each of Pith's folders once, with its kind and its bytes.

    Raises:
        InputError: a root is not a folder.
    """
    from pith.core import InputError
    from pith.core.files import is_folder, user_path
    from pith.core.folders import own_folders

    known: set[Path] = set()
    for root in map(user_path, roots):
        if not is_folder(root):
            raise InputError(f"{root} is not a folder; allowed are folders that can be read, with all in them")
        for folder, kind in own_folders(root):
            if folder.resolve() not in known:
                known.add(folder.resolve())
                yield folder, kind, sum(map(_size, folder.rglob("*")))


def _size(path: Path) -> int:
    """Return the bytes of a file; 0 for a folder, and for what another process has removed meanwhile."""
    try:
        state = path.lstat()
    except OSError:
        return 0
    return 0 if stat.S_ISDIR(state.st_mode) else state.st_size


def _agreed(question: str) -> bool:
    """Return whether the person at the terminal says yes; without an answer it is no."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # the input has ended
        return False
