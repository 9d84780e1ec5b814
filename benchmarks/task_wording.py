"""What a dense model scores in each generated task: in a plain prompt, in its chat template, and in the old wording.

python benchmarks/task_wording.py MODEL --length 1024 --count 12 --out benchmarks/results/task_wording.json

MODEL is the folder of a pretrained model with a chat template. Every finished task is written at once.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pith.measure.environment import environment
from pith.models import Loaded, Subject, load
from pith.tasks import parse_tasks
from pith.tasks.generated import Generated

TASKS = "needle,lookup,passkey,tracing,copying,many_labels,kick_reasoning,kick_generation,ruler"
COLUMNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "chat": {"chat": True},
    "pith": {"language": "pith"},
}


def column(loaded: Loaded, task: Generated, name: str, batch_size: int) -> dict[str, float]:
    """The score of one wording, its interval and the seconds that it took."""
    asked = replace(task, **COLUMNS[name])
    begun = time.perf_counter()
    quality = asked.run(Subject(loaded.model, loaded.tokenizer), batch_size)
    return {
        "value": quality.value,
        "low": quality.low,
        "high": quality.high,
        "chance": asked.calibrate(loaded.tokenizer).chance or 0.0,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder, or a hub id")
    parser.add_argument("--tasks", default=TASKS, help="generated tasks and suites of them")
    parser.add_argument("--columns", default="plain,chat,pith", help="of plain, chat and pith")
    parser.add_argument("--length", type=int, default=1024, help="tokens of each question")
    parser.add_argument("--count", type=int, default=12, help="questions of each task")
    parser.add_argument("--seed", type=int, default=1, help="of the questions")
    parser.add_argument("--batch-size", type=int, default=4, help="questions that are read at once")
    parser.add_argument("--out", type=Path, help="a JSON file to write, or to add tasks and columns to")
    args = parser.parse_args()
    loaded = load(args.model, "float32")
    settings = {"length": args.length, "count": args.count, "seed": args.seed}
    rows: dict[str, Any] = json.loads(args.out.read_text())["rows"] if args.out and args.out.exists() else {}
    for task in parse_tasks(args.tasks, settings):
        if not isinstance(task, Generated):
            parser.error(f"{task} is no generated task")
        for name in args.columns.split(","):
            found = column(loaded, task, name, args.batch_size)
            rows.setdefault(task.name, {"metric": task.metric})[name] = found
            print(f"{task.name:18} {name:6} {found['value']:.3f} {found}", flush=True)
            if args.out:
                told = {"environment": environment(loaded.model, settings), "rows": rows}
                args.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
