"""Whether a model is faster in float32 or in bfloat16 on this machine: what `pith.load` finds, and the whole model.

`pith.load` with dtype="auto" times products of the model's shapes for some milliseconds and takes the faster dtype.
Here the whole model is timed beside it: both dtypes take turns, read a prompt and decode. Medians are written as JSON.

    python benchmarks/dtypes.py smollm2 --out benchmarks/results/dtypes_smollm2.json
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from pith.measure.environment import environment
from pith.models import BUILTIN, load
from pith.models.dtype import PROMPT, measured

DTYPES = ("bfloat16", "float32")


def timed(model: Any, length: int, tokens: int) -> tuple[float, float]:
    """Seconds to read a prompt, and for each decoded token."""
    ids = torch.arange(length)[None] % 1000
    begun = time.perf_counter()
    out = model(ids, use_cache=True, logits_to_keep=1)
    prefill, begun = time.perf_counter() - begun, time.perf_counter()
    for _ in range(tokens):
        out = model(out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values)
    return prefill, (time.perf_counter() - begun) / tokens


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=BUILTIN)
    parser.add_argument("--length", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=16, help="decoded tokens")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each dtype")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    models = {kind: load(args.model, kind, "cpu").model for kind in DTYPES}
    begun = time.perf_counter()
    found = measured(models["bfloat16"])
    took = time.perf_counter() - begun
    runs: dict[str, list[tuple[float, float]]] = {kind: [] for kind in DTYPES}
    for number in range(args.rounds + 1):
        for kind in DTYPES if number % 2 else DTYPES[::-1]:
            runs[kind].append(timed(models[kind], args.length, args.tokens))
    whole = {
        kind: {"prefill": median(one[0] for one in of[1:]), "decode": median(one[1] for one in of[1:])}
        for kind, of in runs.items()  # the first is to warm up
    }
    slow, fast = (whole[kind] for kind in DTYPES)
    data = {
        "command": shlex.join(["python", "benchmarks/dtypes.py", *sys.argv[1:]]),
        "products": {
            "prompt_tokens": PROMPT,
            "prompt_ratio": found[0].prompt / found[0].prompt_float32 if found else None,
            "token_ratio": found[0].token / found[0].token_float32 if found else None,
            "seconds": took,
        },
        "whole_model": whole,
        "ratios": {what: slow[what] / fast[what] for what in ("prefill", "decode")},
        "environment": environment(
            models["float32"], {"length": args.length, "decoded": args.tokens, "runs": args.rounds}
        ),
    }
    text = json.dumps(data, indent=1) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
