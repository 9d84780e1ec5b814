"""Perplexity along an endless stream: the dense model, a plain window, StreamingLLM, and other recipes.

The built-in model reads held-out text many times longer than it was trained on, a few tokens at a time; the plain
window is the window of StreamingLLM without the first tokens (attention sinks). Bytes are the most that were held.

    python benchmarks/stream_perplexity.py --tokens 20000 --out benchmarks/results/stream_perplexity.json
    python benchmarks/stream_perplexity.py --tokens 200000 --chunk 64 --recipe "sir_llm(budget=512)" --without dense
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch

from pith.core import Recipe
from pith.measure import cache_bytes
from pith.measure.environment import environment
from pith.models import builtin
from pith.tasks.heldout import heldout_text


@torch.no_grad()
def losses(model: torch.nn.Module, recipe: Recipe, stream: torch.Tensor, chunk: int) -> tuple[list[float], int, float]:
    """The nats of each token of the stream given those before, the most bytes held, and seconds."""
    cache, found, held, begin = recipe.cache(model), [], 0, time.perf_counter()
    last = stream.shape[1] - 1
    for i in range(0, last, chunk):
        end = min(i + chunk, last)
        logits = model(stream[:, i:end], past_key_values=cache).logits[0].float()
        found += torch.nn.functional.cross_entropy(logits, stream[0, i + 1 : end + 1], reduction="none").tolist()
        held = max(held, cache_bytes(cache))
    return found, held, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=20000, help="length of the stream")
    parser.add_argument("--budget", type=int, default=512, help="tokens that the windows hold")
    parser.add_argument("--chunk", type=int, default=1, help="tokens that are read at a time")
    parser.add_argument("--recipe", action="append", default=[], help="a further recipe; may be given several times")
    parser.add_argument("--without", default="", help="names of rows to leave out, such as dense")
    parser.add_argument("--parts", type=int, default=5, help="parts of the stream, each with its own perplexity")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    args = parser.parse_args()
    model, tokenizer = builtin()
    text = heldout_text() * (1 + args.tokens * 8 // len(heldout_text()))
    stream = tokenizer(text, return_tensors="pt", verbose=False).input_ids[:, : args.tokens + 1]
    rows = {}
    recipes = {
        "dense": "dense",
        "plain window": f"streaming_llm(budget={args.budget}, start_size=0)",
        "streaming_llm": f"streaming_llm(budget={args.budget})",
        **{text: text for text in args.recipe},
    }
    for name, text_of_recipe in recipes.items():
        if name in args.without.split(","):
            continue
        nats, held, seconds = losses(model, Recipe.parse(text_of_recipe), stream, args.chunk)
        size = math.ceil(len(nats) / args.parts)
        parts = [nats[i : i + size] for i in range(0, len(nats), size)]
        rows[name] = {
            "recipe": text_of_recipe,
            "perplexity": [math.exp(sum(p) / len(p)) for p in parts],
            "bytes": held,
            "seconds": seconds,
        }
        print(
            f"{name:44} {held / 2**20:7.2f} MiB  {seconds:6.0f} s  "
            + "  ".join(f"{x:8.2f}" for x in rows[name]["perplexity"]),
            flush=True,
        )
    if args.out:
        settings = {"tokens": args.tokens, "budget": args.budget, "chunk": args.chunk}
        settings["trained"] = model.config.max_position_embeddings
        args.out.write_text(json.dumps({"environment": environment(model, settings), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
