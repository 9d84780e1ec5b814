"""How long a prompt takes with memory that the allocator keeps, against memory that it returns to the system.

Processes of both kinds run by turns, since the setting holds for a whole process.

    python benchmarks/allocator.py smollm2 --json benchmarks/results/allocator.json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from pith.core.allocator import keep_freed_memory
from pith.measure.environment import environment
from pith.models import load


def once(model: str, rows: int, length: int) -> dict[str, Any]:
    """Seconds of a prompt after one that is not counted, and the page faults of the process."""
    loaded = load(model, "float32")
    ids = torch.randint(5, 1000, (rows, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(2):
            begun = time.perf_counter()
            loaded.model(input_ids=ids, use_cache=True, logits_to_keep=1)
            seconds = time.perf_counter() - begun
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"seconds": seconds, "faults": used.ru_minflt, "peak_kib": used.ru_maxrss}
    return found | {"environment": environment(loaded.model, {"rows": rows, "length": length})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=8, help="sequences that are read at once")
    parser.add_argument("--length", type=int, default=512, help="tokens of each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="a JSON file to write")
    parser.add_argument("--once", choices=["kept", "returned"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        if args.once == "kept" and not keep_freed_memory():
            sys.exit("this system's allocator takes no such setting")
        print(json.dumps(once(args.model, args.rows, args.length)))
        return
    shape = ["--rows", str(args.rows), "--length", str(args.length)]
    found: dict[str, list[dict[str, Any]]] = {"kept": [], "returned": []}
    for number in range(args.rounds):
        for kind in sorted(found, reverse=bool(number % 2)):
            command = [sys.executable, __file__, args.model, *shape, "--once", kind]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[kind].append(json.loads(done.stdout))
    ratios = [k["seconds"] / r["seconds"] for k, r in zip(found["kept"], found["returned"], strict=True)]
    rows = [
        {"memory": kind, **{name: median(run[name] for run in runs) for name in ("seconds", "faults", "peak_kib")}}
        for kind, runs in found.items()
    ]
    result = {
        "command": f"python benchmarks/allocator.py {args.model} --json benchmarks/results/allocator.json",
        "environment": found["kept"][0]["environment"],
        "ratio": median(ratios),
        "ratios": ratios,
        "rows": rows,
    }
    print(f"kept / returned: {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
