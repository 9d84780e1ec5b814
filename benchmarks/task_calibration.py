"""What an oracle, a guesser and a dense model score in each generated task, query-aware and query-agnostic.

python benchmarks/task_calibration.py --length 512 --count 20 --out benchmarks/results/task_calibration.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pith.measure.environment import environment
from pith.models import BUILTIN, Loaded, Subject, load
from pith.tasks import parse_tasks
from pith.tasks.generated import Generated

TASKS = "needle,lookup,passkey,copying,tracing,many_labels,ruler"


def row(loaded: Loaded, task: Generated) -> dict[str, Any]:
    """A task's two calibrations, and what the dense model scores with each query."""
    found: dict[str, Any] = {"metric": task.metric, **asdict(task.calibrate(loaded.tokenizer))}
    for query in ("aware", "agnostic"):
        quality = replace(task, query=query).run(Subject(loaded.model, loaded.tokenizer))
        found[query] = {"value": quality.value, "low": quality.low, "high": quality.high}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BUILTIN, help="the built-in model, a folder, or a hub id")
    parser.add_argument("--tasks", default=TASKS, help="generated tasks and suites of them")
    parser.add_argument("--length", type=int, default=512, help="tokens of each question")
    parser.add_argument("--count", type=int, default=20, help="questions of each task")
    parser.add_argument("--seed", type=int, default=0, help="of the questions")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    args = parser.parse_args()
    loaded = load(args.model)
    settings = {"length": args.length, "count": args.count, "seed": args.seed}
    rows: dict[str, Any] = {}
    print(f"{'task':18} {'oracle':>8} {'chance':>8} {'aware':>8} {'agnostic':>8}   95 %, aware")
    for task in parse_tasks(args.tasks, settings):
        if not isinstance(task, Generated):
            parser.error(f"{task} is no generated task")
        rows[task.name] = found = row(loaded, task)
        aware, agnostic = found["aware"], found["agnostic"]
        figures = found["oracle"], found["chance"], aware["value"], agnostic["value"]
        shown = " ".join(f"{figure:8.3f}" for figure in figures)
        print(f"{task.name:18} {shown}   {aware['low']:.3f} to {aware['high']:.3f}", flush=True)
    if args.out:
        args.out.write_text(
            json.dumps({"environment": environment(loaded.model, settings), "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
