"""Gives Pith random texts and damaged files: each must work, or be refused in one clear line.

Texts are recipes, tasks, budgets, lengths and TOML: valid ones that are changed at random places, and hostile ones.
Files are one of each kind that Pith reads, damaged at random (see `fuzz_files`). Allowed is a result that can be
written and read back, or a `PithError` of one line (a syntax error may point at its place below) and fewer than 300
characters; anything else is shown with the options that repeat it.

Example:
    python benchmarks/fuzz.py --recipes 10000 --files 1000 --seed 0
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fuzz_files
from pith.core import Method, Parameter, PithError, Recipe, methods, shorten
from pith.core.sources import files_of
from pith.study import grid, parse_budgets, parse_lengths
from pith.tasks import parse_tasks
from pith.tasks.registry import SUITES, tasks

HOSTILE = (
    *("9" * digits for digits in (19, 20, 400, 5000)), "0x" + "f" * 4000, "0b" + "1" * 70, "-1", "0", "-0.0", "1e999",
    "-1e999", "1e-999", "nan", "inf", "-inf", "1j", "1_000", "True", "None", "...", "b'x'", "''", "()", "[]", "{}",
    "{1}", "{'*': 1e999}", "{'*': {'*': 4}}", "{[]: 1}", "('a', ('b',))", "'\ud800'", "'\\ud800'", "\0", "'\\0'",
    "\x7f", "\x1b[31m", "\u202e", "\u2028", "\U0001f600", "\u00e9" * 50, "\ufeff", "(" * 500, "[" * 300, "{'a':" * 300,
    "-" * 5000, "not " * 3000, "a+" * 3000, "x" * 5000, "'" + "y" * 5000 + "'", "'/proc/kmsg'", "'/dev/zero'",
    "'~nosuchuser'", "'" + "a/" * 3000 + "'", "cls=1", "self=1", "values=1", "name='snapkv'", "**{}", "*x",
    "lambda: 0", "__import__('os')", "f'{1}'", "9GiB", "9" * 400 + "GiB", "'64MiB'", '"', "'", "\\", "\n", "\r\n", "\t",
    "#", "=", ",", "+", "(", ")", "[", "]", "{", "}", ":", "[[method]]", "[method]", "name = 1", "of = {}",
    "1979-05-27", "'''", '"""',
)  # fmt: skip
TEXTS = (
    "",
    "lm_head",
    "*.mlp.*",
    "it's",
    'say "x"',
    "a\\b",
    "two\nlines",
    "\t",
    "\u00e9\U0001f600",
    "\x7f",
    "\0",
    "max",
)
WHOLE = (1, 1, 2, 3, 4, 8, 16, 32, 64, 0, 2**31, 2**63 - 1, 2**63, -1)
SHARES = (0.0, 0.1, 0.25, 0.5, 0.9, 1.0, 0.3333333333333333, 1.5, 5e-324, 1e308, 1e999, -0.5)


class Failure(NamedTuple):
    """What is wrong with the answer to one input.

    Attributes:
        index: the input's number; `--only` repeats it.
        what: the kind of input.
        given: the input, shortened.
        why: what happened.
    """

    index: int
    what: str
    given: str
    why: str


def refused(error: PithError) -> str:
    """Return what is wrong with the message of an error; empty where nothing is."""
    text = str(error)
    lines = text.split("\n")
    if len(text) >= 300:
        return f"the message has {len(text)} characters: {shorten(text)}"
    if len(lines) != 1 and not (len(lines) == 3 and lines[2].strip() == "^"):
        return f"the message has {len(lines)} lines: {text!r}"
    return "" if all(line.isprintable() for line in lines) else f"the message holds control characters: {text!r}"


def outcome(run: Callable[[], Any]) -> tuple[str, str]:
    """Run something that must work or be refused; return "accepted", "refused" or "failed", and what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()
    except PithError as error:
        why = refused(error)
        return ("failed", why) if why else ("refused", "")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return (
            "failed",
            f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {shorten(str(error), 150)}",
        )
    return "accepted", ""


def value(rng: random.Random, parameter: Parameter) -> str:
    """Return a value for a parameter as text: mostly of its type."""
    chance = rng.random()
    if chance < 0.08:
        return rng.choice(HOSTILE)
    if parameter.takes:
        return call(rng, rng.choice(list(methods().values())))
    if chance < 0.12:
        return repr(rng.choice([*TEXTS, *WHOLE, *SHARES]))
    if chance < 0.2:
        return repr(parameter.default)
    choices = re.findall(r"'[^']*'|\b\d+\b", parameter.allowed.partition(", or such")[0])
    if "name pattern" in parameter.allowed and chance < 0.6:
        return "{" + ", ".join(f"{rng.choice(TEXTS)!r}: {rng.choice(choices)}" for _ in range(rng.randint(1, 3))) + "}"
    if parameter.allowed.startswith("one of"):
        return rng.choice(choices)
    if "float" in parameter.kind or parameter.kind == "budget":
        return repr(rng.choice([*SHARES, *WHOLE]))
    if "int" in parameter.kind:
        return repr(rng.choice(WHOLE))
    return rng.choice(("True", "False")) if parameter.kind == "bool" else repr(rng.choice(TEXTS))


def call(rng: random.Random, kind: Any) -> str:
    """Return a call of a method or a task with some of its parameters."""
    parameters = kind.parameters()
    chosen = rng.sample(parameters, rng.randint(0, min(3, len(parameters))))
    return f"{kind.name}({', '.join(f'{p.name}={value(rng, p)}' for p in chosen)})"


def mutated(rng: random.Random, text: str) -> str:
    """Return a text that is changed at random places; half of the time it is left as it is."""
    for _ in range(rng.choice((0, 0, 0, 0, 1, 1, 2, 4))):
        start = rng.randint(0, len(text))
        end = min(len(text), start + rng.choice((0, 0, 1, 2, 8, 1000)))
        middle = rng.choice(("", rng.choice(HOSTILE), text[start:end] * 2, text[start:end][::-1]))
        text = text[:start] + middle + text[end:]
    return text


def recipe_text(rng: random.Random) -> str:
    """Return a recipe of one to three methods."""
    every = list(methods().values())
    return mutated(rng, " + ".join(call(rng, rng.choice(every)) for _ in range(rng.choice((1, 1, 1, 2, 3)))))


def task_text(rng: random.Random) -> str:
    """Return a list of one to three tasks."""
    known = tasks()
    names = [*known, *SUITES, "lm_eval:arc_easy"]
    found = [rng.choice(names) for _ in range(rng.choice((1, 1, 2, 3)))]
    return mutated(rng, ",".join(call(rng, known[name]) if name in known else name for name in found))


def listed(rng: random.Random) -> str:
    """Return a list of budgets or lengths."""
    words = (*map(str, WHOLE), *map(str, SHARES), "64MiB", "1.5KB", *HOSTILE)
    return mutated(rng, ",".join(rng.choice(words) for _ in range(rng.randint(0, 4))))


def toml_text(rng: random.Random) -> str:
    """Return a recipe's file: of a valid recipe, or of tables with values of any type."""
    try:
        text = Recipe.parse(recipe_text(rng)).to_toml()
    except PithError:
        kind: type[Method] = rng.choice(list(methods().values()))
        lines = [f"{p.name} = {value(rng, p)}" for p in kind.parameters() if rng.random() < 0.5]
        text = "\n".join(["[[method]]", f'name = "{kind.name}"', *lines])
    return mutated(rng, text)


def round_trip(found: Recipe, folder: Path) -> None:
    """Make sure that a recipe is read back from its text and from its file as it was."""
    again = Recipe.parse(str(found))
    if again != found or str(again) != str(found):
        raise AssertionError(f"{shorten(str(found))} is read back from its text as {shorten(str(again))}")
    found.save(folder / "again.toml")
    again = Recipe.load(folder / "again.toml")
    if again != found or str(again) != str(found):
        raise AssertionError(f"{shorten(str(found))} is read back from its file as {shorten(str(again))}")


def inputs(folder: Path) -> dict[str, tuple[Callable[[random.Random], str], Callable[[str], Any]]]:
    """Return how each kind of input is made, and what reads it."""

    def recipe(text: str) -> None:
        found = Recipe.parse(text)
        for method in found:
            files_of(method)
        round_trip(found, folder)

    def named(text: str) -> None:
        for one in parse_tasks(text):
            again = parse_tasks(str(one))
            if again != [one] or str(again[0]) != str(one):
                raise AssertionError(f"{shorten(str(one))} is read back from its text as {again}")
            files_of(one)

    def toml(text: str) -> None:
        (folder / "r.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
        round_trip(Recipe.load(folder / "r.toml"), folder)

    return {
        "recipe": (recipe_text, recipe),
        "tasks": (task_text, named),
        "budgets": (listed, lambda text: grid(["snapkv", "ada_kv"], parse_budgets(text))),
        "lengths": (listed, parse_lengths),
        "toml": (toml_text, toml),
    }


def fuzz_texts(seed: int, indices: range, folder: Path) -> Iterator[tuple[str, Failure | None]]:
    """Give texts of every kind in turn; yield what became of each."""
    kinds = list(inputs(folder).items())
    for index in indices:
        name, (make, read) = kinds[index % len(kinds)]
        text = make(random.Random(f"{seed} {index}"))
        found, why = outcome(lambda text=text, read=read: read(text))
        yield f"{name} {found}", Failure(index, name, shorten(repr(text), 200), why) if why else None


def fuzz_damaged(seed: int, indices: range, folder: Path) -> Iterator[tuple[str, Failure | None]]:
    """Damage files of every kind in turn, and read them; yield what became of each."""
    kinds = fuzz_files.kinds(folder)
    for _, (whole, read) in kinds:
        read(fuzz_files.copy_damaged(None, whole, folder / "damaged")[0])  # what is not damaged must work
    for index in indices:
        name, (whole, read) = kinds[index % len(kinds)]
        rng = random.Random(f"{seed} {index}")
        place, how = fuzz_files.copy_damaged(rng, whole, folder / "damaged")
        found, why = outcome(lambda place=place, read=read: read(place))
        yield f"{name} {found}", Failure(index, name, how, why) if why else None


def main() -> int:
    """Run both, print how many were accepted, refused and failed, and return 1 where any failed."""
    lines = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=lines)
    parser.add_argument("--recipes", type=int, default=10_000, help="texts: recipes, tasks, budgets, lengths and TOML")
    parser.add_argument("--files", type=int, default=1000, help="damaged files, of all kinds together")
    parser.add_argument("--seed", type=int, default=0, help="what all chance depends on")
    parser.add_argument("--only", type=int, default=None, help="repeat this one of the texts and of the files only")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    failures: list[Failure] = []
    with tempfile.TemporaryDirectory() as folder:
        for run, count in ((fuzz_texts, options.recipes), (fuzz_damaged, options.files)):
            one = options.only
            began = time.perf_counter()
            indices = range(count) if one is None else range(one, one + 1 if count else one)
            for what, failure in run(options.seed, indices, Path(folder)):
                counts[what] += 1
                if failure:
                    failures.append(failure)
                    print(f"{failure.what} --only {failure.index}: {failure.why}\n    {failure.given}", flush=True)
            print(f"{len(indices)} in {time.perf_counter() - began:.0f} s", flush=True)
    for what, number in sorted(counts.items()):
        print(f"{what:28} {number:6}")
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
