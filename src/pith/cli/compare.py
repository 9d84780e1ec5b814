"""`pith compare`: what recipes do to a model, beside the model as it is."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pith.study import Study

EXAMPLE = "pith compare --family eviction --budgets 0.5,0.25,0.1 --tasks needle,perplexity --length 2048 --out results"
STOPPED = "stopped; what was measured is stored, and the same command goes on from there"


@dataclass(frozen=True)
class Options:
    """The command's options."""

    model: Annotated[str, typer.Argument(help="builtin, a model's folder, or a hub id.")] = "builtin"
    recipe: Annotated[
        list[str] | None, typer.Option(help="Text or a .toml file; repeatable. Default: all evictions.")
    ] = None
    family: Annotated[
        list[str] | None,
        typer.Option(help="Every method of a contract, such as eviction; repeatable. See pith methods."),
    ] = None
    budgets: Annotated[str, typer.Option(help="For recipes that leave theirs open, such as 0.5,1024,64MiB.")] = ""
    tasks: Annotated[str, typer.Option(help="How quality is measured; see pith tasks.")] = "needle,perplexity"
    length: Annotated[int, typer.Option(min=1, help="Tokens of the timed prompt and of the tasks' texts.")] = 1024
    count: Annotated[int | None, typer.Option(min=1, help="Examples of each task. Default: the task's own.")] = None
    seed: Annotated[int, typer.Option(min=0, help="Of the tasks and the timed prompt.")] = 0
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences that a task reads at once.")] = 8
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto"
    out: Annotated[Path, typer.Option(help="The folder for the results and the report.")] = Path("pith-results")
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False


def run(options: Options) -> None:
    """Measure what recipes do to a model: quality, bytes and seconds, beside the model as it is.

    Each result is stored when it is made: the same command, run again, goes on where it was stopped.
    """
    from pith.cli.show import print_json, print_study
    from pith.cli.watch import TerminalWatch
    from pith.models import load
    from pith.report import write
    from pith.study import Here, Store, ask, compare, grid, parse_budgets, tasks_with

    given = {"length": options.length, "count": options.count, "seed": options.seed}
    tasks = tasks_with(options.tasks, {name: value for name, value in given.items() if value is not None})
    recipes = grid(options.recipe or (), parse_budgets(options.budgets), options.family or ())
    with Store(options.out) as store:
        loaded = load(options.model, options.dtype)
        question = ask(loaded, recipes, tasks, length=options.length, seed=options.seed)
        with TerminalWatch(len(recipes)) as watch:
            measurer = Here(loaded, options.length, options.batch_size, options.seed, watch.progress)
            study = compare(question, store, measurer, watch)
    page = write(study, options.out, shlex.join(["pith", *sys.argv[1:]]))
    if options.json:
        print_json(as_data(study) | {"report": str(page), "results": str(store.path)})
    else:
        print_study(study, page)


def as_data(study: Study) -> dict[str, Any]:
    """A study as plain data: what was asked, the verdict, and each row's measurement."""
    import json

    from pith.measure import to_json
    from pith.report import rows, verdict

    return {
        "model": study.question.model,
        "tasks": [str(task) for task in study.question.tasks],
        "settings": {**study.question.settings, **study.question.costs},
        "verdict": verdict(study),
        "refused": study.refused,
        "rows": [
            {
                "label": row.label,
                "cache_share": row.share,
                "within_dense_interval": {str(task): row.keeps(task) for task in study.question.tasks},
                **json.loads(to_json(row.measurement)),
            }
            for row in rows(study)
        ],
    }
