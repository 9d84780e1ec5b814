"""A short fuzz with a fixed seed: `benchmarks/fuzz.py` is the long one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pith.core import InputError, PithError, RecipeSyntaxError

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import fuzz

        yield fuzz
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_texts_and_damaged_files_work_or_are_refused_in_one_line() -> None:
    # as a program of its own, where annotations are not checked at run time: wrong types must be refused by Pith itself
    command = [sys.executable, "-W", "ignore", str(BENCHMARKS / "fuzz.py"), "--seed", "11"]
    options = ["--recipes", "250", "--files", "60"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {line[:28].strip(): int(line[28:]) for line in done.stdout.splitlines() if line[28:].strip().isdigit()}
    kinds = {name.rpartition(" ")[0] for name in counts}
    assert len(kinds) == 15
    assert sum(counts.values()) == 310
    for kind in ("recipe", "tasks", "budgets", "lengths", "toml"):
        assert counts[f"{kind} accepted"] > 3
        assert counts[f"{kind} refused"] > 3


def test_one_input_can_be_repeated(fuzz: ModuleType, tmp_path: Path) -> None:
    texts = [fuzz.recipe_text(fuzz.random.Random(f"0 {index}")) for index in range(20)]
    assert texts == [fuzz.recipe_text(fuzz.random.Random(f"0 {index}")) for index in range(20)]
    assert list(fuzz.fuzz_texts(0, range(5, 8), tmp_path)) == list(fuzz.fuzz_texts(0, range(8), tmp_path))[5:]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("x" * 4000), "ValueError at test_fuzz.py:"),
        (RecursionError(), "RecursionError"),
        (PithError("short", "\nsecond line"), "the message has 2 lines"),
        (PithError("short", "\n" + "x" * 400), "the message has 40"),
        (PithError("short", "\n\x1b[31m\n^"), "the message holds control characters"),
    ],
    ids=["other", "depth", "lines", "long", "control"],
)
def test_what_counts_as_a_failure(error: Exception, says: str, fuzz: ModuleType) -> None:
    def wrong() -> None:
        raise error

    found, why = fuzz.outcome(wrong)
    assert found == "failed"
    assert says in why


def test_what_is_no_failure(fuzz: ModuleType) -> None:
    for error in (InputError("x" * 4000), RecipeSyntaxError("wrong", "\n  text\n  ^")):
        assert fuzz.refused(error) == ""
    assert fuzz.outcome(lambda: None) == ("accepted", "")
