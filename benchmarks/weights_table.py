"""Every weight method on the built-in model, at 8 to 2 bits and 10 to 50 % fewer weights: the table of docs/weights.md.

Results are stored one by one, so that the same command goes on where it was stopped.

    python benchmarks/weights_table.py --out results/weights --json benchmarks/results/weights_table.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cache_table import compared

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
RECIPES = [
    *(f"{name}(bits={bits})" for name in ("rtn", "hqq", "awq", "gptq", "rsq") for bits in (8, 4, 3, 2)),
    *(f"{name}(sparsity={share})" for name in ("magnitude", "wanda", "sparse_gpt") for share in (0.3, 0.5)),
    *(f"{name}(pattern='2:4')" for name in ("magnitude", "wanda", "sparse_gpt")),
    *(f"{name}(sparsity={share})" for name in ("magnitude_channels", "flap") for share in SHARES),
    *("sleb(drop=1)", "sleb(drop=2)", "llm_drop(drop=1, part='attention')", "llm_drop(drop=1, part='mlp')"),
    *("llm_drop(drop=1, part='block')", "llm_drop(drop=2, part='block')", "inheritune(keep=3)"),
    *("minitron(channels=0.5)", "sleb(drop=1) + gptq(bits=4) + snapkv(budget=0.25)"),
]
TRAINED = ["flexi_gpt(drop=1)", "llm_surgeon(sparsity=0.3)", "bit_distiller(bits=2)"]
"""Those that take minutes: `--trained`."""

TASKS = "needle(count=50),perplexity(scored=128, chunk=16)"
HEADINGS = ["recipe", "needle", "perplexity", "weights", "cache"]


def lines(found: dict[str, Any]) -> list[str]:
    """The table as Markdown, in the order asked."""
    table = [HEADINGS, ["---"] * len(HEADINGS), *map(cells, found["rows"])]
    return [f"| {' | '.join(row)} |" for row in table]


def cells(row: dict[str, Any]) -> list[str]:
    """One row of the table: each score with its 95 % interval, ▼ where it is worse example by example."""
    scores = []
    for task, answer in row["answers"].items():
        digits = 1 if task.startswith("perplexity") else 2
        value, low, high = (f"{answer['quality'][key]:.{digits}f}" for key in ("value", "low", "high"))
        worse = " ▼" if row["verdicts"][task] == "worse" else ""
        scores.append(f"{value}{worse} <small>{low} to {high}</small>")
    return [f"`{row['label']}`", *scores, f"{row['weights_share']:.1%}", f"{row['cache_share']:.1%}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/weights"), help="folder of the stored study")
    parser.add_argument("--json", type=Path, help="a JSON file to write")
    parser.add_argument("--recipe", action="append", help="only these recipes; may be given several times")
    parser.add_argument("--trained", action="store_true", help="the methods that take minutes instead")
    parser.add_argument("--length", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--sequences", type=int, default=32, help="of 256 tokens, that methods read")
    args = parser.parse_args()
    calibration = ["--calibration-sequences", str(args.sequences), "--calibration-length", "256"]
    recipes = args.recipe or (TRAINED if args.trained else RECIPES)
    found = compared(args.out, recipes, args.length, args.tasks, calibration)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write("\n".join([*lines(found), "", *found["verdict"]]) + "\n")


if __name__ == "__main__":
    main()
