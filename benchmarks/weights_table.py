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

from pith.core import Recipe
from pith.measure import Speed

BITS, SHARES = (8, 4, 3, 2), (0.1, 0.2, 0.3, 0.4, 0.5)
QUANTIZED = [
    *(f"{name}(bits={bits})" for name in ("rtn", "hqq", "awq", "gptq", "rsq", "bit_distiller") for bits in BITS),
    *(f"{name}(bits={bits}, group_size=0)" for name in ("rtn", "gptq", "rsq") for bits in (4, 3, 2)),
    *(f"amq(bits={bits})" for bits in (2.5, 3.0, 3.5)),
    "reallm",
]
PRUNED = [
    *(f"{name}(sparsity={share})" for name in ("magnitude", "wanda", "sparse_gpt") for share in SHARES),
    *(f"{name}(pattern='2:4')" for name in ("magnitude", "wanda", "sparse_gpt")),
    *(f"{name}(sparsity={share})" for name in ("magnitude_channels", "flap", "llm_surgeon", "minitron") for share in SHARES),
    *(f"{name}(drop={drop})" for name in ("sleb", "flexi_gpt") for drop in (1, 2)),
    *(f"llm_drop(drop={drop}, part='{part}')" for part in ("attention", "mlp", "block") for drop in (1, 2)),
    *(f"inheritune(keep={kept})" for kept in (3, 2)),
    *(f"to_moe(active={share})" for share in (0.75, 0.5)),
]  # fmt: skip
TASKS = "needle(count=100),needle(count=100, keys=16),perplexity(scored=128)"
HEADINGS = ["recipe", "needle", "16 keys", "perplexity", "weights", "prefill", "decode"]


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
        scores.append(f"{value}{worse} <small>{low}–{high}</small>")
    speed = Speed(**row["costs"]["speed"])
    times = [f"{speed.prefill_ratio:.2f}x", f"{'' if speed.decode_tells else '~'}{speed.decode_ratio:.2f}x"]
    return [f"`{Recipe.parse(row['recipe'])}`", *scores, f"{row['weights_share']:.1%}", *times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/weights"), help="folder of the stored study")
    parser.add_argument("--json", type=Path, help="a JSON file to write")
    parser.add_argument("--recipe", action="append", help="only these recipes; may be given several times")
    parser.add_argument("--length", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--tasks", default=TASKS)
    args = parser.parse_args()
    found = compared(args.out, args.recipe or [*QUANTIZED, *PRUNED], args.length, args.tasks)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write("\n".join([*lines(found), "", *found["verdict"]]) + "\n")


if __name__ == "__main__":
    main()
