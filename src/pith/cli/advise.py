"""`pith advise`: which methods would help a model on this machine, predicted in less than a minute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pith.cli.command import MODEL
from pith.cli.shared import Dtype, Families, Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pith.core import Recipe
    from pith.models import Loaded
    from pith.predict.advice import Advice, Check

EXAMPLE = "pith advise builtin --lengths 1024,4000 --family eviction --verify"
LENGTHS = (1024, 8192, 32768)
"""What is asked for where nothing is said, as far as the model can read it."""


@dataclass(frozen=True)
class Options:
    """The command's options."""

    model: Annotated[str, typer.Argument(help=MODEL)] = "builtin"
    lengths: Annotated[str, typer.Option(help="Tokens of the prompts. Default: 1024,8192,32768, if it reads them.")] = (
        ""
    )
    batch: Annotated[int, typer.Option(min=1, help="Sequences that are read at once.")] = 1
    recipe: Annotated[
        list[str] | None, typer.Option(help="Text or a .toml file; repeatable. Default: every method of the cache.")
    ] = None
    family: Families = None
    seconds: Annotated[float, typer.Option(min=1, help="How long predicting may take; divided between methods.")] = 50.0
    seed: Annotated[int, typer.Option(min=0, help="Of the prompts.")] = 0
    dtype: Dtype = "auto"
    verify: Annotated[bool, typer.Option("--verify", help="Measure it too, and show how far each was off.")] = False
    json: Json = False


def run(options: Options) -> None:
    """Predict what methods would cost a model on this machine: bytes, seconds to read a prompt and for a token.

    Nothing is measured at full length: a few layers run at lengths that there is time for, and the rest follows.
    Methods that change weights are not predicted; pith compare measures them.
    """
    from pith.cli.advice import print_advice, print_checks
    from pith.cli.advise_watch import AdviceWatch
    from pith.cli.pulse import Pulse
    from pith.cli.show import print_json
    from pith.cli.starting import model_line
    from pith.core import InputError, methods
    from pith.models import load
    from pith.predict.advise import advise, verify
    from pith.study import grid, parse_lengths

    if options.verify and options.batch != 1:
        raise InputError(f"--batch {options.batch} cannot be verified; measurements are of one sequence")
    asked = parse_lengths(options.lengths)
    acting = sorted({m.contract for m in methods().values() if m.order > 0})
    families = options.family or ([] if options.recipe else acting)
    recipes = grid(options.recipe or (), (), families)
    if len(recipes) < 2:
        raise InputError("the dense model alone leaves nothing to advise on; name a recipe with a method")
    with Pulse(lambda: f"loading {options.model}"):
        loaded = load(options.model, options.dtype)
    lengths = asked or _readable(loaded)
    watch = AdviceWatch(f"{model_line(loaded)}\n{_start(recipes, lengths, options)}")
    with watch.screen("predicting"):
        advice = advise(
            loaded, recipes, lengths, batch=options.batch, seconds=options.seconds,
            seed=options.seed, progress=watch.progress,
        )  # fmt: skip
    checks: tuple[Check, ...] = ()
    if not options.json:
        print_advice(advice)
    if options.verify:
        with watch.screen("measuring"):
            checks = verify(loaded, advice, seed=options.seed, progress=watch.progress)
    if options.json:
        print_json(as_data(advice, checks))
    elif checks:
        print_checks(checks)


def _start(recipes: Sequence[Recipe], lengths: Sequence[int], options: Options) -> str:
    """Return what is predicted, and how long that takes."""
    others = len(recipes) - 1
    line = (
        f"to predict: the dense model and {others} recipe{'s' * (others != 1)} at {', '.join(map(str, lengths))} "
        f"tokens, in about {options.seconds:g} seconds"
    )
    return line + ("; then all of it is measured at full length (--verify), which takes longer" * options.verify)


def as_data(advice: Advice, checks: tuple[Check, ...] = ()) -> dict[str, Any]:
    """The predictions as plain data, and what was measured, where it was."""
    from dataclasses import asdict

    from pith.predict.advice import ERRORS, median_error

    found: dict[str, Any] = {"predictions": asdict(advice)}
    if checks:
        found["verified"] = {
            "median_error": {name: median_error(checks, what) for name, what in ERRORS.items()},
            "rows": [
                {**asdict(check), "error": {name: check.error(what) for name, what in ERRORS.items()}}
                for check in checks
            ],
        }
    return found


def _readable(loaded: Loaded) -> list[int]:
    """The usual lengths that the model can read, and the longest that it can where some of them are longer."""
    from pith.measure.seconds import DECODED

    config = loaded.model.config.get_text_config(decoder=True)
    most = (getattr(config, "max_position_embeddings", None) or LENGTHS[-1] + DECODED) - DECODED
    return [length for length in LENGTHS if length < most] + ([most] if most < LENGTHS[-1] else [LENGTHS[-1]])
