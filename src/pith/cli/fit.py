"""`pith fit`: the recipe that meets limits of memory, quality and time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
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
    Json,
    Store,
    Tasks,
    Text,
)

if TYPE_CHECKING:
    from pith.models import Loaded
    from pith.search.aim import Aim
    from pith.search.sought import Sought
    from pith.study import Study

EXAMPLE = "pith fit builtin --memory 15MiB --quality 0.98 --out fitted"
STOPPED = "stopped; what was tried is stored, and the same command goes on from there"
USUAL = {"length": 1024, "trials": 60, "runs": 5}
"""The numbers that hold where nothing else is given."""
QUICK = {"trials": 15, "count": 8, "length": 512, "runs": 3}
"""What --quick sets where it is not given."""
SETS = " ".join(f"--{name} {value}" for name, value in QUICK.items())
NOTHING_FITS = 1
"""The exit code when no recipe that was tried meets the limits."""


@dataclass(frozen=True)
class Options:
    """The command's options."""

    model: Annotated[str, typer.Argument(help=MODEL)] = "builtin"
    memory: Annotated[
        str | None, typer.Option(help="The most that weights and cache may take together, such as 64MiB.")
    ] = None
    quality: Annotated[
        float, typer.Option(help="The least share of the dense model's score to keep, on every task.")
    ] = 0.98
    latency: Annotated[
        float | None, typer.Option(help="The most time for a decoded token, ratio to dense, such as 1.0.")
    ] = None
    tasks: Tasks = "needle,perplexity"
    chat: Chat = False
    text: Text = None
    length: Annotated[
        int | None,
        typer.Option(min=1, help=f"Tokens of the weighed prompt and of the tasks' texts. Default: {USUAL['length']}."),
    ] = None
    batch: Annotated[int, typer.Option(min=1, help="Sequences whose caches must fit at once.")] = 1
    count: Count = None
    trials: Annotated[
        int | None,
        typer.Option(min=1, help=f"Recipes to try on examples, earlier runs counted. Default: {USUAL['trials']}."),
    ] = None
    runs: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Pairs of timed runs of what is measured afresh, such as 3. Default: {USUAL['runs']}."
        ),
    ] = None
    quick: Annotated[
        bool, typer.Option("--quick", help=f"An answer sooner: sets {SETS}, each where it is not given.")
    ] = False
    minutes: Annotated[float | None, typer.Option(min=0, help="The search ends after so many.")] = None
    seed: Annotated[int, typer.Option(min=0, help="Of the search; what it finds is measured on the next one.")] = 0
    batch_size: BatchSize = 8
    dtype: Dtype = "auto"
    among: Annotated[str, typer.Option(help="Contracts and methods to search, such as eviction,quantization,amq.")] = ""
    calibration: Calibration = "auto"
    calibration_sequences: CalibrationSequences = 64
    calibration_length: CalibrationLength = 512
    out: Annotated[Path, typer.Option(help="The folder for the results and the report.")] = Path("pith-fit")
    store: Store = None
    json: Json = False


def run(options: Options) -> None:
    """Search methods and their parameters for the recipe that meets limits of memory, quality and time.

    Methods that change weights are searched where less memory is allowed than the dense model takes, or --among names
    them; those that train only where it names them one by one.

    The best of what was tried is measured afresh on examples that the search has not seen. Exits with 0 when a recipe
    meets every limit then, and with 1 when none does: the nearest is named. The same command goes on after a stop.
    """
    from pith.cli.command import command_line, say, source
    from pith.cli.fit_watch import TerminalFitWatch
    from pith.cli.pulse import Pulse
    from pith.cli.show import print_json
    from pith.cli.starting import model_line
    from pith.core import parse_bytes, user_path
    from pith.models import load
    from pith.report import write
    from pith.search.aim import Aim
    from pith.search.fit import fit
    from pith.study import Store, tasks_with

    length, trials, runs, count = _numbers(options)
    options = replace(options, length=length, runs=runs, out=user_path(options.out))
    given: dict[str, Any] = {"length": length, "count": count, "seed": options.seed}
    given |= {"text": options.text, "chat": options.chat or None}
    aim = Aim(
        memory=parse_bytes(options.memory) if options.memory is not None else None,
        quality=options.quality,
        latency=options.latency,
        tasks=tasks_with(options.tasks, {name: value for name, value in given.items() if value is not None}),
        length=length,
        batch=options.batch,
        seed=options.seed,
        batch_size=options.batch_size,
        among=tuple(filter(None, (word.strip() for word in options.among.split(",")))),
    )
    with Store(options.store or options.out, say=say) as store:
        with Pulse(lambda: f"loading {options.model}"):
            loaded = replace(load(options.model, options.dtype), source=source(options))
        aim.require_sense(loaded)
        start = f"{model_line(loaded)}\n{_search_line(aim, trials, options)}"
        ends = time.monotonic() + 60 * options.minutes if options.minutes is not None else math.inf
        with TerminalFitWatch(start, options.batch_size, ends) as watch:
            study, sought = fit(loaded, aim, store, watch, trials=trials, minutes=options.minutes, runs=runs)
    command = command_line()
    _record(options, loaded, study, command)
    page = write(study, options.out, command, sought=sought)
    if options.json:
        print_json(as_data(study, sought) | {"report": str(page)})
    else:
        _show(study, [*sentences(sought, aim), f"Everything that was tried: {page}"])
    if sought.found is None:
        raise typer.Exit(NOTHING_FITS)


def _numbers(options: Options) -> tuple[int, int, int, int | None]:
    """Return the length, the trials, the pairs of timed runs and the examples, of --quick where they are not given."""
    preset: dict[str, int] = {**USUAL, **QUICK} if options.quick else USUAL
    given = {name: getattr(options, name) for name in ("length", "trials", "runs", "count")}
    length, trials, runs, count = (preset.get(name) if value is None else value for name, value in given.items())
    assert length is not None
    assert trials is not None
    assert runs is not None
    return length, trials, runs, count


def _search_line(aim: Aim, trials: int, options: Options) -> str:
    """Return what the search does, before it starts."""
    from pith.report.words import headings, listed

    minutes = f", for at most {options.minutes:g} minutes" if options.minutes is not None else ""
    return (
        f"to search: up to {trials} recipes{minutes}, by {listed(headings(aim.tasks))} at {aim.length} tokens and by "
        "timed runs; the best are then measured afresh"
    )


def sentences(sought: Sought, aim: Aim) -> list[str]:
    """The outcome, what it was measured to be, and the command that uses it."""
    from pith.core.words import bytes_
    from pith.report.search import Search

    lines = [Search(sought).sentence.replace("`", "")]
    if reached := sought.reached:
        caches = "the cache" if aim.batch == 1 else f"the caches of {aim.batch} sequences"
        lines.append(
            f"Its weights and {caches} take {bytes_(reached.memory)}, the dense model's {bytes_(sought.dense_memory)}; "
            f"it keeps {reached.quality:.3f} of the quality, and a decoded token takes {reached.latency:.2f}x the time."
        )
    return [*lines, f"To use it: {sought.command}"]


def _show(study: Study, lines: list[str]) -> None:
    """The table of what was measured afresh, and the outcome, on stdout."""
    from rich.console import Console

    from pith.cli.show import rich_table
    from pith.report import table

    console = Console(highlight=False)
    console.print(rich_table(table(study), console.width))
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def as_data(study: Study, sought: Sought) -> dict[str, Any]:
    """The fresh comparison and the search as plain data."""
    from dataclasses import asdict

    from pith.cli.compare import as_data as compared

    return {"sought": asdict(sought), "study": compared(study)}


def _record(options: Options, loaded: Loaded, study: Study, command: str) -> None:
    """`run.json`, with which `pith compare --from` repeats what was measured afresh."""
    from pith.study import Settings, record, write_record

    settings = Settings(
        options.length or USUAL["length"], options.seed + 1, options.batch_size, options.dtype,
        calibration=options.calibration,
        calibration_sequences=options.calibration_sequences, calibration_length=options.calibration_length,
        runs=options.runs or USUAL["runs"],
    )  # fmt: skip
    write_record(record(study.question, loaded, settings, {}, command), options.out)
