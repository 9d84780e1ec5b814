"""How the terminal shows predictions, and how far they were off."""

from __future__ import annotations

from collections.abc import Callable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pith.cli.command import say
from pith.cli.show import ROOMY
from pith.core import Recipe
from pith.predict.advice import ERRORS, SAME, Advice, Check, Forecast, Predicted, median_error
from pith.report import label
from pith.report.words import bytes_, digits, listed, percent, seconds


def print_advice(advice: Advice) -> None:
    """The machine's figures, the table of predictions, and what to make of it, on stdout."""
    console = Console(highlight=False)
    machine = advice.machine
    console.print(Text(f"This machine copies {bytes_(machine.copy)}/s, multiplies matrices at {_flops(machine.matrix)}"
                       + ("" if machine.overhead is None else
                          f", and a step takes {seconds(machine.overhead)} beyond reading the weights")
                       + "."), soft_wrap=True)  # fmt: skip
    console.print(_table(advice, console.width))
    for sentence in sentences(advice):
        console.print(Text(sentence), soft_wrap=True)
    for note in advice.notes:
        say(f"note: {note}")


def sentences(advice: Advice) -> list[str]:
    """Which recipes would help at the longest length, which would not, and how far it was looked."""
    length = advice.lengths[-1]

    def those(fits: Callable[[Forecast], bool]) -> list[str]:
        return [_label(one) for one in advice.predicted if fits(one.forecasts[-1])]

    groups = {
        "would help": those(lambda f: f.faster or (f.smaller and not f.slower)),
        "would hold less but make it slower": those(lambda f: f.smaller and f.slower),
        "would only make it slower": those(lambda f: f.slower and not f.smaller),
        "would change little": those(lambda f: not (f.slower or f.faster or f.smaller)),
    }
    found = [f"{what}: {listed(names)}" for what, names in groups.items() if names]
    lines = [f"Predicted at {length} tokens: {'; '.join(found)}."] if found else []
    lines += [f"Cannot be applied: {recipe}: {why}" for recipe, why in advice.refused.items()]
    lines += [f"{_label(one)}: {one.stopped}." for one in advice.predicted if one.stopped]
    if advice.late:
        lines.append(f"The time was too short for {listed(list(advice.late))}; give more with --seconds.")
    layers = f"{advice.layers} of {advice.of} layers" if advice.layers < advice.of else f"all {advice.of} layers"
    lines.append(
        f"These are predictions, made in {advice.seconds:.0f} s from {layers}, not measurements: --verify measures. "
        f"Ratios to dense, above 1 is slower; * was not timed at that length and follows from shorter ones; "
        f"a change of less than {SAME:.0%} counts as none."
    )
    return lines


def print_checks(checks: tuple[Check, ...]) -> None:
    """Predictions beside measurements, and the median errors, on stdout."""
    console = Console(highlight=False)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="predicted → measured (error of the prediction)")
    for index, title in enumerate(("recipe", "tokens", "cache", "prefill", "decode", "decode ratio")):
        shown.add_column(title, justify="left" if not index else "right", no_wrap=index > 0, overflow="fold")
    words: dict[str, Callable[[float], str]] = {
        "bytes": bytes_, "prefill": seconds, "decode": seconds, "decode_ratio": lambda ratio: f"{ratio:.2f}x"
    }  # fmt: skip
    joint = "\n" if console.width < ROOMY else " "
    for check in checks:
        cells = [
            joint.join([
                text(ERRORS[name](check.predicted)), f"→ {text(ERRORS[name](check.measured))}",
                f"({check.error(ERRORS[name]):+.0%})",
            ])
            for name, text in words.items()
        ]  # fmt: skip
        shown.add_row(label(Recipe.parse(check.recipe)), str(check.predicted.length), *cells)
    console.print(shown)
    errors = [f"{name.replace('_', ' ')} {median_error(checks, what):.1%}" for name, what in ERRORS.items()]
    console.print(Text(f"Median error of {len(checks)} predictions: {listed(errors)}."), soft_wrap=True)


def _table(advice: Advice, width: int) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"Predictions for {advice.model}, batch {advice.batch}")
    shown.add_column("recipe", overflow="fold", min_width=12)
    joint = "\n" if width < ROOMY else " "
    shown.add_column(f"cache at\n{advice.lengths[-1]}", justify="right", no_wrap=True)
    for what in ("decode", "prefill"):
        for length in advice.lengths:
            shown.add_column(f"{what}\n{length}", justify="right", no_wrap=True)
    dense = advice.dense.forecasts
    shown.add_row(
        "dense", bytes_(dense[-1].bytes), *(seconds(f.decode) for f in dense), *(seconds(f.prefill) for f in dense)
    )
    for one in advice.predicted:
        last = one.forecasts[-1]
        held = Text(bytes_(last.bytes)).append(f"{joint}{percent(last.share)}", "dim")
        cells = [_ratio(f.decode_ratio, f.timed) for f in one.forecasts]
        cells += [_ratio(f.prefill_ratio, f.timed) for f in one.forecasts]
        shown.add_row(_label(one).replace("(", "\n(", width < ROOMY), held, *cells)
    return shown


def _ratio(ratio: float, timed: bool) -> Text:
    style = "red" if ratio > 1 + SAME else "green" if ratio < 1 - SAME else ""
    return Text(f"{ratio:.2f}x{' ' if timed else '*'}", style=style)


def _label(one: Predicted) -> str:
    return label(Recipe.parse(one.recipe))


def _flops(rate: float) -> str:
    """Operations per second with the unit that suits them."""
    unit, size = ("TFLOP/s", 1e12) if rate >= 1e12 else ("GFLOP/s", 1e9)
    return f"{digits(rate / size)} {unit}"
