"""`pith generate`: text that streams as it is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from pith.cli.command import MODEL

EXAMPLE = 'pith generate builtin "The import statement" --recipe "snapkv(budget=0.25)"'


@dataclass(frozen=True)
class Options:
    """The command's options."""

    model: Annotated[str, typer.Argument(help=MODEL)]
    prompt: Annotated[str, typer.Argument(help="What the model goes on with.")]
    recipe: Annotated[str, typer.Option(help="A recipe, or the path of a .toml file.")] = "dense"
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The most tokens to write.")] = 128
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token; higher is more random.")] = 0.0
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0
    calibration: Annotated[
        str, typer.Option(help="The text that methods read before they change weights: a file, or builtin.")
    ] = "builtin"
    calibration_sequences: Annotated[int, typer.Option(min=1, help="Sequences of that text that are read.")] = 64
    calibration_length: Annotated[int, typer.Option(min=2, help="Tokens of each of them.")] = 512
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto"


def run(options: Options) -> None:
    """Stream the text with which a model goes on from a prompt, under a recipe.

    The text goes to stdout; at the end stderr tells the cache's bytes and the tokens per second. What a recipe changes
    of weights is changed anew each time; pith apply keeps it.
    """
    from pith.cli.command import say, source
    from pith.cli.stream import stream
    from pith.models import load
    from pith.study import read_recipe

    recipe = read_recipe(options.recipe)
    say(stream(replace(load(options.model, options.dtype), source=source(options)), recipe, options))
