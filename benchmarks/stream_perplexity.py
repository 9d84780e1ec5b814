"""Perplexity along an endless stream: the dense model, a plain window, and StreamingLLM.

The built-in model reads held-out text many times longer than it was trained on, one token at a time, in a cache of
constant size; the plain window is the same window without the first tokens (attention sinks).

    python benchmarks/stream_perplexity.py --tokens 20000 --out benchmarks/results/stream_perplexity.json
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch

from pith.core import Recipe
from pith.measure import cache_bytes
from pith.measure.environment import environment
from pith.models import builtin
from pith.tasks.heldout import heldout_text


@torch.no_grad()
def losses(model: torch.nn.Module, recipe: Recipe, stream: torch.Tensor) -> tuple[list[float], int]:
    """The nats of each token of the stream given those before, and the bytes held at its end."""
    cache, found = recipe.cache(model), []
    for i in range(stream.shape[1] - 1):
        logits = model(stream[:, i : i + 1], past_key_values=cache).logits[0, -1].float()
        found.append(float(torch.nn.functional.cross_entropy(logits, stream[0, i + 1])))
    return found, cache_bytes(cache)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=20000, help="length of the stream")
    parser.add_argument("--budget", type=int, default=512, help="tokens that the windows hold")
    parser.add_argument("--parts", type=int, default=5, help="parts of the stream, each with its own perplexity")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    args = parser.parse_args()
    model, tokenizer = builtin()
    text = heldout_text() * (1 + args.tokens * 8 // len(heldout_text()))
    stream = tokenizer(text, return_tensors="pt", verbose=False).input_ids[:, : args.tokens + 1]
    rows = {}
    for name, text_of_recipe in {
        "dense": "dense",
        "plain window": f"streaming_llm(budget={args.budget}, start_size=0)",
        "streaming_llm": f"streaming_llm(budget={args.budget})",
    }.items():
        nats, held = losses(model, Recipe.parse(text_of_recipe), stream)
        size = math.ceil(len(nats) / args.parts)
        parts = [nats[i : i + size] for i in range(0, len(nats), size)]
        rows[name] = {
            "recipe": text_of_recipe,
            "perplexity": [math.exp(sum(p) / len(p)) for p in parts],
            "bytes": held,
        }
        print(
            f"{name:14} {held / 2**20:7.2f} MiB  " + "  ".join(f"{x:8.2f}" for x in rows[name]["perplexity"]),
            flush=True,
        )
    if args.out:
        settings = {"tokens": args.tokens, "budget": args.budget, "trained": model.config.max_position_embeddings}
        args.out.write_text(json.dumps({"environment": environment(model, settings), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
