"""What every command shares: options as one dataclass, and a user's mistake as one line."""

from __future__ import annotations

import inspect
import math
import re
import shlex
import sys
import warnings
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import typer

from pith.core.budget import MOST
from pith.core.errors import InputError, PithError, PithWarning, shown
from pith.core.words import is_unicode

if TYPE_CHECKING:
    from pith.weights import Source

T = TypeVar("T")

MODEL = "A name of `pith models`, a model's folder, a GGUF file, or a hub id."
"""The help of the argument that names a model."""

MISTAKE, INTERRUPTED = 2, 130
"""Exit codes: what the user gave cannot be, and Ctrl-C."""


def add(
    app: typer.Typer, run: Callable[[T], None], options: type[T], *, example: str, stopped: str = "stopped"
) -> None:
    """Adds a command whose options are the fields of a dataclass; it is called as the module of `run` is.

    Args:
        app: the application.
        run: does the command's work; its docstring is the command's help.
        options: the dataclass; each field is annotated with its `typer.Option` or `typer.Argument`.
        example: a command line that the help shows.
        stopped: what Ctrl-C says.
    """

    def command(**values: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                for name, value in values.items():
                    _require_plain(name, value)
                run(options(**values))
        except PithError as error:
            say(f"pith: {error}")
            raise typer.Exit(MISTAKE) from None
        except KeyboardInterrupt:
            say(f"pith: {stopped}")
            raise typer.Exit(INTERRUPTED) from None

    hints = get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[f.name],
                          default=inspect.Parameter.empty if f.default is MISSING else f.default)
        for f in fields(options)  # type: ignore[arg-type]
    ]  # fmt: skip
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {f: hints[f] for f in hints}
    command.__doc__ = run.__doc__
    app.command(run.__module__.rpartition(".")[2], epilog=f"Example: {example}")(command)


def command_line() -> str:
    """The command line as it was given, without the passwords of its URLs: reports and records show it."""
    words = (re.sub(r"(://[^/:@]*):[^@]*@", r"\1:***@", word) for word in sys.argv[1:])
    return shlex.join(["pith", *words])


def source(options: Any) -> Source:
    """Where methods get their calibration texts, as a command's options say."""
    from pith.weights import Source

    return Source(options.calibration, options.calibration_sequences, options.calibration_length)


def say(line: str) -> None:
    """A line for the person, on stderr: stdout is for results."""
    print(line, file=sys.stderr, flush=True)


def _require_plain(name: str, value: Any) -> None:
    """Make sure that an option's value is what a tensor, a file and a terminal can hold.

    Raises:
        InputError: a number is not finite or is beyond 2**63, or a text is not UTF-8.
    """
    given = f"--{name.replace('_', '-')}"
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, float) and not math.isfinite(one):
            raise InputError(f"{given} {one} is not allowed; allowed are finite numbers")
        if isinstance(one, int) and abs(one) > MOST:
            raise InputError(f"{given} {shown(one, 40)} is too large; allowed are integers below 2**63")
        if isinstance(one, str | PurePath) and not is_unicode(str(one)):
            raise InputError(f"{given} {shown(str(one))} holds bytes that are not UTF-8")


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Pith's own warnings as lines; those of other packages are not for the user of a command."""
    if issubclass(category, PithWarning):
        say(f"note: {message}")
