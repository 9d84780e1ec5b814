"""`pith compare`: what recipes do to a model, beside the model as it is."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pith.cli.command import MODEL
from pith.cli.shared import (
    BatchSize,
    Calibration,
    CalibrationLength,
    CalibrationSequences,
    Chat,
    Count,
    Dtype,
    Families,
    Json,
    Store,
    Tasks,
    Text,
)

if TYPE_CHECKING:
    from pith.cli.watch import TerminalWatch
    from pith.core import Recipe
    from pith.models import Loaded
    from pith.study import Here, Record, Settings, Study, Team
    from pith.tasks import Task

EXAMPLE = "pith compare --family eviction --budgets 0.5,0.25,0.1 --tasks needle,perplexity --length 2048 --out results"
STOPPED = "stopped; what was measured is stored, and the same command goes on from there"
OUT = Path("pith-results")
LENGTH, RUNS = 1024, 5
"""Tokens, and pairs of timed runs, where nothing else is given."""
QUICK = {"count": 8, "length": 512, "runs": 3}
"""What --quick sets where it is not given."""
SETS = " ".join(f"--{name} {value}" for name, value in QUICK.items())
KEPT = "weights"
"""The folder in that of the results in which models lie whose weights recipes changed."""


@dataclass(frozen=True)
class Options:
    """The command's options."""

    model: Annotated[str, typer.Argument(help=MODEL)] = "builtin"
    recipe: Annotated[
        list[str] | None, typer.Option(help="Text or a .toml file; repeatable. Default: all evictions.")
    ] = None
    family: Families = None
    budgets: Annotated[str, typer.Option(help="For recipes that leave theirs open, such as 0.5,1024,64MiB.")] = ""
    at_bytes: Annotated[
        str | None, typer.Option(help="Each recipe finds its own parameter that holds so many bytes, such as 2MiB.")
    ] = None
    at_latency: Annotated[
        float | None, typer.Option(min=0, help="The same for a decoded token's time, ratio to dense, such as 0.8.")
    ] = None
    tasks: Tasks = "needle,perplexity"
    query: Annotated[
        str | None, typer.Option(help="aware or agnostic: whether tasks show the question before the cache shrinks.")
    ] = None
    chat: Chat = False
    text: Text = None
    haystack: Annotated[
        str | None, typer.Option(help="A text file in which needle and ruler hide facts. Default: Pith's own prose.")
    ] = None
    length: Annotated[
        int | None, typer.Option(min=1, help=f"Tokens of the timed prompt and of the tasks' texts. Default: {LENGTH}.")
    ] = None
    lengths: Annotated[str, typer.Option(help="Each task stands once at each, such as 512,1024,2048.")] = ""
    count: Count = None
    runs: Annotated[
        int | None, typer.Option(min=1, help=f"Pairs of timed runs for each recipe, such as 3. Default: {RUNS}.")
    ] = None
    no_times: Annotated[bool, typer.Option("--no-times", help="Measure quality and bytes only; nothing is timed.")] = (
        False
    )
    quick: Annotated[
        bool,
        typer.Option("--quick", help=f"An answer within minutes: sets {SETS}, each where it is not given."),
    ] = False
    seed: Annotated[int, typer.Option(min=0, help="Of the tasks and the timed prompt.")] = 0
    batch_size: BatchSize = 8
    dtype: Dtype = "auto"
    peak: Annotated[bool, typer.Option("--peak", help="Measure the peak of memory too.")] = False
    calibration: Calibration = "auto"
    calibration_sequences: CalibrationSequences = 64
    calibration_length: CalibrationLength = 512
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the tasks; times are taken alone.")] = 1
    ray: Annotated[str | None, typer.Option(help="A Ray cluster's address for the workers; local starts one here.")] = (
        None
    )
    out: Annotated[Path | None, typer.Option(help=f"The folder for results and report. Default: {OUT}.")] = None
    store: Store = None
    repeat: Annotated[
        Path | None, typer.Option("--from", help="Repeat a study by its run.json, such as results/run.json.")
    ] = None
    trust_files: Annotated[
        bool,
        typer.Option(
            "--trust-files",
            help="With --from: open the files and folders that run.json names (model, texts, gates, task files of "
            "lm_eval). Such task files can run code: only for a run.json whose writer you trust.",
        ),
    ] = False
    json: Json = False


_WITH_REPEAT = ("model", "workers", "ray", "out", "store", "repeat", "trust_files", "json")
"""The options that say where and how, and the model, whose hash is compared; a repeated study says all others."""


def run(options: Options) -> None:
    """Measure what recipes do to a model: quality, bytes and seconds, beside the model as it is.

    Each result is stored when it is made: the same command, run again, goes on where it was stopped.
    """
    from pith.cli.command import command_line, say, source
    from pith.cli.pulse import Pulse
    from pith.cli.show import print_json, print_study
    from pith.cli.starting import model_line
    from pith.cli.watch import TerminalWatch
    from pith.core import user_path
    from pith.models import load
    from pith.report import write
    from pith.study import Here, Store, Telling, ask, compare, read_record, record, write_record

    options = replace(_resolved(options), out=options.out and user_path(options.out))
    repeated = read_record(options.repeat) if options.repeat else None
    recipes, tasks = repeated.parsed() if repeated else _chosen(options)
    options = _as_recorded(options, repeated, recipes, tasks) if repeated else options
    # a repeated study keeps the command that asked it first
    command = repeated.command if repeated else command_line()
    settings, out = _settings(options), user_path(options.out or OUT)
    with Store(options.store or out, say=say) as store:
        # on another machine "auto" may give another dtype, in which nothing can be repeated
        dtype = repeated.dtype if repeated else options.dtype
        with Pulse(lambda: f"loading {options.model}"):
            loaded = replace(load(options.model, dtype), source=source(options), kept=out / KEPT)
        for task in () if repeated else tasks:  # of a record it is first said whether it is of this model
            task.check_length(loaded.model)
        quick = None if repeated else SETS * (not options.quick)
        with TerminalWatch(len(recipes), options.batch_size, model_line(loaded), quick) as watch:
            refused: dict[str, str] = dict(repeated.refused) if repeated else {}
            if not repeated and (options.at_bytes or options.at_latency is not None):
                recipes, refused = _at(options, loaded, recipes, settings.length, watch)
            question = ask(
                loaded, recipes, tasks, length=settings.length, seed=options.seed, runs=settings.runs,
                peak=options.peak,
            )  # fmt: skip
            if repeated:
                repeated.require(question, loaded)
            kept = write_record(record(question, loaded, settings, refused, command), out)
            measurer = Here(
                loaded, settings.length, options.batch_size, options.seed, watch.progress, settings.runs,
                options.peak, Telling(loaded, say, options.batch_size),
            )  # fmt: skip
            study = compare(question, store, measurer, watch, _team(options, measurer, watch), refused)
    page = write(study, out, command)
    if options.json:
        print_json(as_data(study) | {"report": str(page), "results": store.place, "run": str(kept)})
    else:
        print_study(study, page)
        print(f"For papers: {page.parent / 'charts'}. Results: {store.place}.")
        if any(len(recipe.weights) for recipe in recipes):
            print(f"Models whose weights were changed: {out / KEPT}; pith.load reads them, pith clean removes them.")
        print(f"Again: pith compare --from {shlex.quote(str(kept))}")


def _resolved(options: Options) -> Options:
    """Return the options with the numbers that were not given, of --quick or the usual ones; a record has its own.

    Raises:
        InputError: --runs and --no-times are both given.
    """
    from pith.core import InputError, user_path

    if options.repeat:
        return replace(options, repeat=user_path(options.repeat))
    if options.no_times and options.runs is not None:
        raise InputError(f"--runs {options.runs} is not allowed with --no-times, which times nothing; leave one out")
    usual = {"length": LENGTH, "runs": 0 if options.no_times else RUNS}
    preset: dict[str, Any] = {**usual, **QUICK, **({"runs": 0} if options.no_times else {})} if options.quick else usual
    return replace(options, **{name: value for name, value in preset.items() if getattr(options, name) is None})


def _chosen(options: Options) -> tuple[tuple[Recipe, ...], tuple[Task, ...]]:
    """The recipes and the tasks that the options name."""
    from pith.core import InputError
    from pith.study import grid, parse_budgets, parse_lengths, tasks_with

    if options.query not in (None, "aware", "agnostic"):
        raise InputError(f"query={options.query!r} is not allowed; allowed is aware or agnostic")
    given = {"length": options.length, "count": options.count, "seed": options.seed, "query": options.query}
    given |= {"text": options.text, "chat": options.chat or None, "haystack": options.haystack}
    settings = {name: value for name, value in given.items() if value is not None}
    tasks = tasks_with(options.tasks, settings, parse_lengths(options.lengths))
    return grid(options.recipe or (), parse_budgets(options.budgets), options.family or ()), tasks


def _as_recorded(options: Options, record: Record, recipes: tuple[Recipe, ...], tasks: tuple[Task, ...]) -> Options:
    """The options with what a recorded study was asked; what it names is opened only where the user allows it."""
    from pith.core import InputError
    from pith.study.trust import require_complete, require_own_files, require_trusted

    defaults = {field.name: field.default for field in fields(Options)}
    for name, usual in defaults.items():
        if name not in _WITH_REPEAT and getattr(options, name) != usual:
            raise InputError(f"--from repeats a study as it was; it goes without --{name.replace('_', '-')}")
    named = options.model != defaults["model"]
    out = options.out or (options.repeat or OUT).parent
    if not options.trust_files:
        require_trusted(record, recipes, tasks, model_named=named)
        require_own_files(out)
    require_complete(record, recipes, tasks)
    settings = record.settings
    recorded = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return replace(options, model=options.model if named else record.model, out=out, **recorded)


def _settings(options: Options) -> Settings:
    from pith.study import Settings

    return Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})


def _at(
    options: Options, loaded: Loaded, recipes: tuple[Recipe, ...], length: int, watch: TerminalWatch
) -> tuple[tuple[Recipe, ...], dict[str, str]]:
    """The recipes at the measured budget, the dense model first, and why others cannot meet it."""
    from pith.core import ModelError, parse_bytes
    from pith.search import recipes_at

    nbytes = parse_bytes(options.at_bytes) if options.at_bytes else None
    watch.starts()
    found, refused = recipes_at(
        loaded, recipes, nbytes=nbytes, latency=options.at_latency, length=length, seed=options.seed,
        progress=watch.progress,
    )  # fmt: skip
    if refused and not any(map(len, found)):
        recipe, why = next(iter(refused.items()))
        raise ModelError(f"no recipe can meet the budget; {recipe}: {why}")
    return found, refused


def _team(options: Options, measurer: Here, watch: TerminalWatch) -> Team | None:
    """The workers that were asked for; none where this process does all by itself."""
    from pith.study import RayWorkers, Workers

    if options.ray is not None:
        return RayWorkers(options.ray, options.workers, measurer.elsewhere(), watch.answered)
    return Workers(options.workers, measurer.elsewhere(), watch.answered) if options.workers > 1 else None


def as_data(study: Study) -> dict[str, Any]:
    """A study as plain data: what was asked, the verdict, and each row's measurement."""
    import json

    from pith.measure import to_json
    from pith.report import rows, verdict
    from pith.report.calibration import scales

    return {
        "model": study.question.model,
        "tasks": [str(task) for task in study.question.tasks],
        "settings": {**study.question.settings, **study.question.costs},
        "verdict": verdict(study),
        "refused": study.refused,
        "calibrations": {
            str(one.task): {"oracle": one.oracle, "chance": one.chance, "tells": one.tells} for one in scales(study)
        },
        "rows": [
            {
                "label": row.label,
                "cache_share": row.cache_share,
                "weights_share": row.weights_share,
                "verdicts": {str(task): row.difference(task).verdict for task in study.question.tasks},
                **json.loads(to_json(row.measurement)),
            }
            for row in rows(study)
        ],
    }
