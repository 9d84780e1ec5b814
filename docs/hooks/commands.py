"""The commands: what `pith --help` knows, as pages."""

from __future__ import annotations

import types
import typing
from typing import Any

from marked import block, plain, table
from typer.main import get_command

from pith.cli import app

GUIDES = ("compare", "fit", "advise", "apply", "models", "clean")
"""Commands that have a guide, in the order in which one meets them; the others follow by name."""


def known() -> dict[str, Any]:
    """The commands by their names."""
    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    names = [name for name in GUIDES if name in found]
    return {name: found[name] for name in [*names, *sorted(set(found) - set(names))]}


def pages() -> dict[str, str]:
    """Every page, by its path."""
    return {"commands/index.md": index(), **{f"commands/{name}.md": page(name) for name in known()}}


def nav() -> list[Any]:
    """The table first, then each command."""
    return [{"All commands": "commands/index.md"}, *({f"pith {n}": f"commands/{n}.md"} for n in known())]


def index() -> str:
    """All commands."""
    rows = [(f"[`pith {name}`]({name}.md)", plain(summary(c))) for name, c in known().items()]
    return "\n\n".join(
        [
            "# The commands",
            table(["command", "what it does"], rows),
            "Results go to stdout, everything else to stderr. A mistake is one line that names the value and what is "
            "allowed, and exit code 2; Ctrl-C is exit code 130. `--json` prints plain data for other programs.",
        ]
    )


def page(name: str) -> str:
    """A command's page, where nobody wrote a guide."""
    return f"# pith {name}\n\n{plain(known()[name].help or '')}\n\n{options(name)}"


def options(name: str) -> str:
    """A command's usage and its options, as `--help` tells them."""
    command = known()[name]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    rest = [p for p in command.params if p.param_type_name == "option"]
    words = " ".join(p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments)
    text = [block(" ".join(filter(None, [f"pith {name}", words, "[OPTIONS]" if rest else ""])), "bash")]
    if arguments:
        text.append(table(["argument", "default", "what it is"], [row(p) for p in arguments]))
    if rest:
        text.append(table(["option", "default", "what it is"], [row(p) for p in rest]))
    if command.epilog:
        label, _, example = command.epilog.partition(": ")
        text += [f"{label}:", block(example, "bash")]
    return "\n\n".join(text)


def row(parameter: Any) -> tuple[str, str, str]:
    """An argument or an option: how it is written, its default, and its help."""
    name = parameter.name.upper() if parameter.param_type_name == "argument" else ", ".join(parameter.opts)
    if parameter.param_type_name == "option" and not parameter.is_flag:
        name += f" {kind(parameter)}"
    default = "" if parameter.default is None or parameter.default in (False, "") else f"`{parameter.default}`"
    return f"`{name}`", default, plain(parameter.help or "")


def kind(parameter: Any) -> str:
    """What an option takes, in one word."""
    hint = parameter.type_descriptor.annotation
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    if typing.get_origin(hint) is list:
        hint = typing.get_args(hint)[0]
    return {"int": "N", "float": "X", "Path": "PATH"}.get(getattr(hint, "__name__", ""), "TEXT")


def summary(command: Any) -> str:
    """The first paragraph of a command's help."""
    return " ".join((command.help or "").split("\n\n")[0].split())
