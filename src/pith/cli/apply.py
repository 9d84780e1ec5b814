"""`pith apply`: a smaller model, written into a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pith.cli.command import MODEL
from pith.cli.shared import Calibration, CalibrationLength, CalibrationSequences, Json

EXAMPLE = 'pith apply "gptq(bits=4)" Qwen/Qwen3-0.6B smaller'
STOPPED = "stopped; finished parts are kept, and the same command goes on from there"


@dataclass(frozen=True)
class Options:
    """The command's options."""

    recipe: Annotated[str, typer.Argument(help="A recipe, or the path of a .toml file.")]
    model: Annotated[str, typer.Argument(help=MODEL)]
    out: Annotated[Path, typer.Argument(help="The folder that is made.")]
    format: Annotated[
        str, typer.Option(help="auto, plain, compressed-tensors, gguf or pith; auto never takes gguf.")
    ] = "auto"
    calibration: Calibration = "auto"
    calibration_sequences: CalibrationSequences = 64
    calibration_length: CalibrationLength = 512
    dtype: Annotated[
        str, typer.Option(help="Of what is written: checkpoint (the model's own), float32, bfloat16 or float16.")
    ] = "checkpoint"
    json: Json = False


def run(options: Options) -> None:
    """Make a model smaller and write it into a folder, which is read back before it is put in place.

    A command that was stopped goes on where it was when it is given again.
    """
    from dataclasses import asdict

    from pith.cli.making import make, told
    from pith.cli.show import print_json

    outcome = make(options)
    if options.json:
        print_json(asdict(outcome))
    else:
        for line in told(outcome):
            print(line)
