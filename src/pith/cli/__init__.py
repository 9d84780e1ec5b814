"""The command `pith`: one file a command.

Nothing heavy is imported before a command runs, so that the help comes at once.
"""

from typing import Annotated

import typer

from pith.cli import advise, apply, clean, compare, fit, generate, methods, models, tasks
from pith.cli.command import add

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"pith {version('pith-lm')}")
        raise typer.Exit


@app.callback(epilog="Example: pith compare --budgets 0.5,0.25 --out results")
def pith(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Research on making language models cheaper, side by side, measured on your model and machine."""


add(app, advise.run, advise.Options, example=advise.EXAMPLE)
add(app, apply.run, apply.Options, example=apply.EXAMPLE, stopped=apply.STOPPED)
add(app, clean.run, clean.Options, example=clean.EXAMPLE)
add(app, compare.run, compare.Options, example=compare.EXAMPLE, stopped=compare.STOPPED)
add(app, fit.run, fit.Options, example=fit.EXAMPLE, stopped=fit.STOPPED)
add(app, generate.run, generate.Options, example=generate.EXAMPLE)
add(app, methods.run, methods.Options, example=methods.EXAMPLE)
add(app, models.run, models.Options, example=models.EXAMPLE)
add(app, tasks.run, tasks.Options, example=tasks.EXAMPLE)


def main() -> None:
    """Runs the command line; a user's mistake ends it with code 2, Ctrl-C with 130."""
    from pith.core.allocator import keep_freed_memory

    keep_freed_memory()
    app()
