"""`pith tasks`: what quality can be measured by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pith.cli.shared import Json

if TYPE_CHECKING:
    from pith.tasks import Task

EXAMPLE = "pith tasks needle"


@dataclass(frozen=True)
class Options:
    """The command's options."""

    name: Annotated[str | None, typer.Argument(help="A task, for its whole card.")] = None
    json: Json = False


def run(options: Options) -> None:
    """List the tasks, or show one: metric, formula, parameters."""
    from pith.cli.show import print_card, print_json, print_listing
    from pith.tasks import task, tasks
    from pith.tasks.registry import SUITES

    found = [task(options.name)] if options.name else list(tasks().values())
    if options.json:
        print_json(card(found[0]) if options.name else list(map(card, found)))
    elif options.name:
        print_card(options.name, _parts(found[0]), found[0].parameters())
    else:
        suites = [(name, "a suite", f"Stands for {', '.join(names)}.") for name, names in SUITES.items()]
        rows = [(t.name, _metric(t), t.doc("summary")) for t in found]
        print_listing(("task", "metric", "what it asks"), [*rows, *suites])


def _metric(task: type[Task]) -> str:
    return f"{task.metric}, {'higher' if task.higher_is_better else 'lower'} is better"


def _parts(task: type[Task]) -> list[tuple[str, str]]:
    return [("metric", _metric(task)), ("what it asks", task.doc("summary")), ("formula", task.doc("formula"))]


def card(task: type[Task]) -> dict[str, Any]:
    """Everything that is known of a task, as plain data."""
    from pith.cli.show import parameters_json

    return {
        "name": task.name,
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "summary": task.doc("summary"),
        "formula": task.doc("formula"),
        "parameters": parameters_json(task.parameters()),
    }
