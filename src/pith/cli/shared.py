"""Options that several commands have, with one help each."""

from __future__ import annotations

from typing import Annotated

import typer

Families = Annotated[
    list[str] | None,
    typer.Option(help="Every method of a contract, such as eviction; repeatable. See pith methods."),
]
Tasks = Annotated[str, typer.Option(help="How quality is measured; see pith tasks.")]
Chat = Annotated[
    bool, typer.Option("--chat", help="Tasks ask in the chat template; for models that follow instructions.")
]
Text = Annotated[str | None, typer.Option(help="A text file for perplexity and bits_per_byte. Default: Pith's prose.")]
Count = Annotated[int | None, typer.Option(min=1, help="Examples of each task. Default: the task's own.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Sequences that a task reads at once.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Calibration = Annotated[
    str, typer.Option(help="What methods read before they change weights: a file, prose, python or auto.")
]
CalibrationSequences = Annotated[int, typer.Option(min=1, help="Sequences of that text that are read.")]
CalibrationLength = Annotated[int, typer.Option(min=2, help="Tokens of each of them.")]
Store = Annotated[str | None, typer.Option(help="A database for the results, such as postgresql://USER@HOST/DATABASE.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
