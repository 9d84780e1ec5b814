"""`pith generate`: text that streams as it is written, or a chat."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from pith.cli.command import MODEL
from pith.cli.shared import Calibration, CalibrationLength, CalibrationSequences, Dtype

EXAMPLE = 'pith generate builtin "The import statement" --recipe "snapkv(budget=0.25)"'


@dataclass(frozen=True)
class Options:
    """The command's options."""

    model: Annotated[str, typer.Argument(help=MODEL)]
    prompt: Annotated[
        str | None, typer.Argument(help="What the model continues, or with --chat answers; none reads stdin.")
    ] = None
    recipe: Annotated[str, typer.Option(help="A recipe, or the path of a .toml file.")] = "dense"
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the model's chat template.")] = False
    system: Annotated[str | None, typer.Option(help="With --chat: the system message before the first turn.")] = None
    turns: Annotated[
        Path | None,
        typer.Option(help="With --chat: a file of turns, a line each, or a .jsonl file with role and content."),
    ] = None
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The most tokens to write.")] = 128
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token; higher is more random.")] = 0.0
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0
    calibration: Calibration = "auto"
    calibration_sequences: CalibrationSequences = 64
    calibration_length: CalibrationLength = 512
    dtype: Dtype = "auto"


def run(options: Options) -> None:
    """Stream the text with which a model goes on from a prompt, under a recipe.

    The text goes to stdout; at the end stderr tells the cache's bytes and the tokens per second. What a recipe changes
    of weights is changed anew each time; pith apply keeps it.

    With --chat the prompt is one turn; without a prompt every line of stdin is a turn, until it ends (Ctrl-D). The
    cache stays from turn to turn, as the recipe made it.
    """
    from pith.cli.chat import talk
    from pith.cli.command import say, source
    from pith.cli.pulse import Pulse
    from pith.cli.stream import stream
    from pith.models import load
    from pith.study import read_recipe

    _require_meant(options)
    recipe = read_recipe(options.recipe)
    with Pulse(lambda: f"loading {options.model}"):
        loaded = replace(load(options.model, options.dtype), source=source(options))
    if options.chat:
        talk(loaded, recipe, options)
    else:
        say(stream(loaded, recipe, options))


def _require_meant(options: Options) -> None:
    """Raise an error if options are given that mean nothing together."""
    from pith.core import InputError

    if not options.chat and (options.system is not None or options.turns is not None):
        given = "--system" if options.system is not None else "--turns"
        raise InputError(f"{given} is for chats; add --chat, or leave it out")
    if options.turns is not None and options.prompt is not None:
        raise InputError("a prompt and --turns are both given; leave one out")
    if not options.chat and options.prompt is None:
        raise InputError("the prompt is missing; give the model a text to continue, or --chat to talk with it")
