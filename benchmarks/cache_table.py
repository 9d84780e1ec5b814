"""Every cache method on a model, at about a half, a quarter and a tenth: the tables of docs/cache.md.

Methods with a budget are swept; the others have parameters that come near, scaled to a prompt of 1024 tokens. Results
are stored as they are measured, so that the same command continues where it was stopped.

    python benchmarks/cache_table.py --out results/cache --json benchmarks/results/cache_table.json
    python benchmarks/cache_table.py --model smollm2 --length 512 --count 16 --no-times --out results/smollm2 \\
        --json benchmarks/results/cache_smollm2.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pith.core import Recipe
from pith.measure import Speed
from pith.report.words import headings
from pith.tasks import parse_tasks

BUDGETED = [
    *(
        "snapkv",
        "expected_attention",
        "expected_attention(epsilon=0.01)",
        "kvzip",
        "h2o",
        "tova",
        "key_norm",
        "key_diff",
    ),
    *("streaming_llm", "sir_llm", "random_eviction", "ada_kv", "pyramid_kv"),
]
EVICTIONS = [
    *(f"lag_kv(lag_size=64, ratio={ratio})" for ratio in (0.45, 0.2, 0.05)),
    "pyramid_infer",
    "pyramid_infer(prefill_decay_strategy='constant', prefill_decay_ratio=0.65, recent_ratio=0.1)",
    "pyramid_infer(prefill_decay_strategy='constant', prefill_decay_ratio=0.3, recent_ratio=0.05)",
    "duo_attention(sink_size=8, recent_size=64)",
    *(f"duo_attention(sink_size=8, recent_size=64, sparsity={sparsity})" for sparsity in (0.75, 0.9)),
]
STORAGES = [
    *("kivi(bits=2)", "kivi(bits=4)", "deco_quant(bits=2)", "deco_quant(bits=4)", "deco_quant(bits=8)"),
    *("think", "kv_cache_int8"),
]
READINGS = [
    *(f"quest(token_budget={k}, skip_layers=0)" for k in (512, 256, 102)),
    *(f"recycled_attention(k={k})" for k in (512, 256, 102)),
    "token_select(n_init=16, n_local=128, k=368, chunk=128)",
    "token_select(n_init=16, n_local=64, k=176, chunk=64)",
    "token_select(n_init=8, n_local=32, k=62, chunk=32)",
    "inf_llm(n_init=16, n_local=240, block_size=16, topk=16, exec_block_size=64)",
    "inf_llm(n_init=16, n_local=112, block_size=16, topk=8, exec_block_size=64)",
    "inf_llm(n_init=8, n_local=46, block_size=16, topk=3, exec_block_size=32)",
    "long_heads(chunk_size=16, attention_length=96)",
]
TASKS = "needle(count=50),needle(count=50, keys=16),perplexity(scored=48)"
PRETRAINED = "needle,passkey,lookup,perplexity(scored=48)"
"""The tasks of a model other than the built-in one; each has `--count` examples."""
QUARTER = [
    *(f"{method}(budget=0.25)" for method in ("snapkv", "expected_attention", "kvzip", "h2o", "tova", "key_norm")),
    *(f"{method}(budget=0.25)" for method in ("key_diff", "streaming_llm", "sir_llm", "random_eviction")),
    *("snapkv(budget=0.25, kernel=5)", "expected_attention(budget=0.25, epsilon=0.01)"),
    *("ada_kv(snapkv(budget=0.25))", "pyramid_kv(snapkv(budget=0.25))", "lag_kv(lag_size=32, ratio=0.2)"),
    "pyramid_infer(prefill_decay_strategy='constant', prefill_decay_ratio=0.3, recent_ratio=0.05)",
    *("kivi(bits=2)", "kivi(bits=4)", "deco_quant(bits=4)", "deco_quant(bits=2)", "think", "kv_cache_int8"),
    *("quest(token_budget=128, skip_layers=0)", "recycled_attention(k=128)"),
]
"""What such a model is measured with: about a quarter of 512 tokens is kept or read.

Left out are readings that read a prompt in many small blocks (`token_select`, `inf_llm`, `long_heads`), which take
several times as long, and `duo_attention`, which needs gates that were fitted to the model.
"""


def compared(
    out: Path,
    recipes: list[str],
    length: int,
    tasks: str,
    others: Sequence[str] = (),
    model: str = "builtin",
    budgets: str = "0.5,0.25,0.1",
) -> dict[str, Any]:
    """What `pith compare` found, as its JSON."""
    named = [word for recipe in recipes for word in ("--recipe", recipe)]
    options = ["--budgets", budgets, "--tasks", tasks, "--length", str(length), "--out", str(out), "--json"]
    if model == "builtin":  # reading prompts once for many recipes is worth more where reading them takes longer
        options += ["--workers", str(os.cpu_count() or 1)]  # they share the tasks; times are taken alone
    command = [sys.executable, "-m", "pith", "compare", model, *named, *options, *others]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The table as Markdown, by family, method and bytes."""
    dense, *others = found["rows"]
    families = ["eviction", "allocation", "storage", "reading"]

    def place(row: dict[str, Any]) -> tuple[int, str, float]:
        [method] = Recipe.parse(row["recipe"]).methods
        return families.index(method.contract), method.name, -row["cache_share"]

    timed = ["prefill", "decode"] if dense["costs"]["speed"] else []
    scores = headings(tuple(parse_tasks(",".join(dense["answers"]))))
    heads = ["recipe", *scores, "bytes held", "claimed", *timed]
    table = [heads, ["---"] * len(heads), cells(dense), *map(cells, sorted(others, key=place))]
    return [f"| {' | '.join(row)} |" for row in table]


def cells(row: dict[str, Any]) -> list[str]:
    """One row of the table."""
    scores = []
    for task, answer in row["answers"].items():
        digits = 1 if task.startswith("perplexity") else 2
        worse = " ▼" if row["verdicts"][task] == "worse" else ""
        scores.append(f"{answer['quality']['value']:.{digits}f}{worse}")
    shares = [f"{row['cache_share']:.1%}", f"{row['costs']['bytes']['claimed']:.1%}"]
    times = []
    if row["costs"]["speed"]:
        speed = Speed(**row["costs"]["speed"])
        noisy = "" if speed.decode_tells else "~"
        times = [f"{speed.prefill_ratio:.2f}x", f"{noisy}{speed.decode_ratio:.2f}x"]
    return [f"`{row['label']}`", *scores, *shares, *times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/cache"), help="folder of the stored study")
    parser.add_argument("--json", type=Path, help="a JSON file to write")
    parser.add_argument("--recipe", action="append", help="only these recipes; may be given several times")
    parser.add_argument("--length", type=int, default=1024, help="tokens of the prompt")
    parser.add_argument("--model", default="builtin", help="as for pith compare")
    parser.add_argument("--budgets", default="0.5,0.25,0.1")
    parser.add_argument("--tasks", help="default: those of the model")
    parser.add_argument("--count", type=int, help="examples of each task that does not say it")
    parser.add_argument("--no-times", action="store_true", help="nothing is timed")
    args = parser.parse_args()
    every = [*BUDGETED, *EVICTIONS, *STORAGES, *READINGS] if args.model == "builtin" else QUARTER
    recipes = args.recipe or every
    tasks = args.tasks or (TASKS if args.model == "builtin" else PRETRAINED)
    others = ["--no-times"] * args.no_times + (["--count", str(args.count)] if args.count else [])
    found = compared(args.out, recipes, args.length, tasks, others, args.model, args.budgets)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write("\n".join([*lines(found), "", *found["verdict"]]) + "\n")


if __name__ == "__main__":
    main()
