"""`pith methods`: what there is, and each method's card."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pith.cli.shared import Json

if TYPE_CHECKING:
    from pith.core import Method

EXAMPLE = "pith methods snapkv"


@dataclass(frozen=True)
class Options:
    """The command's options."""

    name: Annotated[str | None, typer.Argument(help="A method, for its whole card.")] = None
    json: Json = False


def run(options: Options) -> None:
    """List the methods, or show one: paper, formula, parameters, deviations."""
    from pith.cli.show import print_card, print_json, print_listing
    from pith.core import method, methods

    found = [method(options.name)] if options.name else list(methods().values())
    if options.json:
        print_json(card(found[0]) if options.name else list(map(card, found)))
    elif options.name:
        print_card(options.name, _parts(found[0]), found[0].parameters())
    else:
        rows = [(m.name, m.contract, m.paper.arxiv or "-", m.doc("summary")) for m in found]
        print_listing(("method", "contract", "arXiv", "what it does"), rows)


def _parts(method: type[Method]) -> list[tuple[str, str]]:
    from pith.report.cards import reads

    paper = method.paper
    code = f"https://github.com/{paper.code}" if paper.code else ""
    source = (f"{paper.title}. {paper.authors}, {paper.year}.", paper.url, code)
    return [
        ("contract", f"{method.contract}: {method.question}"),
        ("texts", reads(method)),
        ("paper", "\n".join(filter(None, source))),
        ("what it does", method.doc("summary")),
        ("formula", method.doc("formula")),
        ("deviates from the paper", method.doc("deviations")),
    ]


def card(method: type[Method]) -> dict[str, Any]:
    """Everything that is known of a method, as plain data."""
    from pith.cli.show import parameters_json

    return {
        "name": method.name,
        "contract": method.contract,
        "question": method.question,
        "calibrated": getattr(method, "calibrated", None),
        "paper": {**asdict(method.paper), "url": method.paper.url},
        "summary": method.doc("summary"),
        "formula": method.doc("formula"),
        "deviations": method.doc("deviations"),
        "parameters": parameters_json(method.parameters()),
    }
