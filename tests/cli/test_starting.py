"""What is said before a comparison starts, and how a long one could be made shorter."""

from __future__ import annotations

from dataclasses import replace

from pith.cli.starting import model_line, shorter, study_line
from pith.measure.cost import SPEED
from pith.models import load
from pith.study.remaining import Piece, Remaining
from pith.tasks import parse_tasks
from study.fakes import question

ASKED = replace(question("snapkv"), costs={"length": 2048, "seed": 0, "runs": 5})
ALL = [(recipe, task) for recipe in ASKED.recipes for task in (None, *ASKED.tasks)]


def test_the_model_and_the_machine_stand_in_one_line() -> None:
    line = model_line(load("builtin", "float32"))
    assert line.startswith("builtin: LlamaForCausalLM, 3.")
    assert " million parameters, float32, on " in line
    assert line.rpartition(" with ")[2].split()[1] in ("thread", "threads")


def test_what_is_measured_is_told_with_its_counts_lengths_and_runs() -> None:
    assert study_line(ASKED, ALL) == (
        "to measure: the dense model and 2 recipes, each by needle (50 examples of 2048 tokens) and perplexity (16 "
        "examples of 2048 tokens); times by 5 pairs of runs at 2048 + 32 tokens each"
    )
    untimed = replace(ASKED, costs={**ASKED.costs, "runs": 0})
    assert "; bytes at 2048 tokens, no times" in study_line(untimed, ALL)
    assert study_line(ASKED, ALL[2:]).endswith("; 2 of 9 results are stored already")
    even = replace(ASKED, tasks=parse_tasks("needle,lookup", {"length": 64, "count": 2}))
    assert "each by needle and lookup (2 examples of 64 tokens each); " in study_line(even, ALL)


def test_a_long_comparison_is_told_what_would_make_it_shorter() -> None:
    now = [0.0]
    pieces = [Piece(recipe, what, 1.0) for recipe in "abc" for what in (SPEED, "needle")]
    remaining = Remaining(pieces, lambda: now[0])
    remaining.begins()
    now[0] = 300.0
    remaining.step(("a",), SPEED, 1, 1)
    assert shorter(ASKED, remaining, "--count 8") == (
        "--quick (--count 8), --no-times saves about 10 minutes, --count 25 saves about 8 minutes, --length 1024 saves "
        "half or more, each recipe fewer saves about 8 minutes"
    )
    assert not shorter(ASKED, remaining, "").startswith("--quick")
