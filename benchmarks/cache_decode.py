"""Decoding speed and bytes held: dense Transformers, Pith without a method, and methods at several budgets.

A randomly initialised Llama shape (8 layers, hidden 512, 8 query and 2 key-value heads of size 64) reads a prompt and
decodes; the subjects take turns in one process, and medians and ratios to dense Transformers are written as JSON.

    python benchmarks/cache_decode.py --lengths 8192 --families eviction,allocation --budgets 0.25
    python benchmarks/cache_decode.py --lengths 16384 --families reading --budgets ""
    python benchmarks/cache_decode.py --lengths 16384 --recipe "kivi(bits=2)" --dtype bfloat16
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from pith.core import ModelError, PithWarning, Recipe
from pith.measure import cache_bytes
from pith.measure.environment import environment
from pith.models import builtin
from pith.study import grid, parse_budgets

DENSE = "dense Transformers"


def shape(dtype: torch.dtype, device: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=32768,
    )
    return LlamaForCausalLM(config).to(device, dtype).eval()


def synchronised() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.no_grad()
def run(model: LlamaForCausalLM, recipe: str, prompt: torch.Tensor, decoded: int) -> dict[str, float]:
    """Seconds of the prompt and of each decoded token, and bytes held after both."""
    if recipe == DENSE:
        model.set_attn_implementation("sdpa")
        cache: Any = DynamicCache(config=model.config)
    else:
        cache = Recipe.parse(recipe).cache(model)
    begin = synchronised()
    token = model(prompt, past_key_values=cache, logits_to_keep=1).logits[:, -1:].argmax(-1)
    read = synchronised()
    held = cache_bytes(cache)
    steps = []
    for _ in range(decoded):
        before = synchronised()
        token = model(token, past_key_values=cache).logits.argmax(-1)
        steps.append(synchronised() - before)
    return {
        "prefill_seconds": read - begin,
        "decode_seconds": statistics.median(steps),
        "prefill_bytes": held,
        "decoded_bytes": cache_bytes(cache),
    }


def takes(model: LlamaForCausalLM, recipe: str) -> bool:
    """Whether the recipe can be applied to the model; says why not."""
    try:
        Recipe.parse(recipe).cache(model)
    except ModelError as error:
        print(f"left out: {recipe}: {error}", flush=True)
        return False
    return True


def summary(runs: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Medians of each subject, and medians of its ratios to the dense run of the same round."""
    rows = []
    for recipe, mine in runs.items():
        row: dict[str, Any] = {"recipe": recipe}
        for key in mine[0]:
            row[key] = statistics.median(r[key] for r in mine)
            row[key.replace("_seconds", "_time").replace("_bytes", "_share") + "_to_dense"] = statistics.median(
                r[key] / dense[key] for r, dense in zip(mine, runs[DENSE], strict=True)
            )
        rows.append(row)
    return rows


def measure(
    model: LlamaForCausalLM, length: int, recipes: list[str], rounds: int, decoded: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    prompt = torch.randint(0, 4096, (1, length), generator=torch.Generator().manual_seed(0)).to(model.device)
    runs: dict[str, list[dict[str, float]]] = {recipe: [] for recipe in recipes}
    for index in range(rounds + 1):  # the first round warms up
        for recipe in recipes if index % 2 else reversed(recipes):
            got = run(model, recipe, prompt, decoded)
            if index:
                runs[recipe].append(got)
        tell(f"{length} tokens: round {index} of {rounds}")
    return summary(runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="2048,8192,16384", help="prompt lengths, in tokens")
    parser.add_argument("--families", default="", help="contracts, such as eviction,reading: all their methods")
    parser.add_argument("--recipe", action="append", default=[], help="a recipe; may be given several times")
    parser.add_argument("--budgets", default="0.5,0.25,0.1", help="for recipes that leave theirs open")
    parser.add_argument("--dtype", help="float32 or bfloat16; by default the device's")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds that count")
    parser.add_argument("--decoded", type=int, default=32, help="decoded tokens in each run")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    parser.add_argument("--save", type=Path, help="only write the model, for pith advise, into this folder")
    args = parser.parse_args()
    warnings.simplefilter("ignore", PithWarning)
    families = [name for name in args.families.split(",") if name]
    swept = map(str, grid(args.recipe, parse_budgets(args.budgets), families))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = args.dtype or ("bfloat16" if device == "cuda" else "float32")
    model = shape(getattr(torch, dtype), device)
    if args.save:
        model.save_pretrained(args.save)
        builtin()[1].save_pretrained(args.save)
        return
    recipes = [DENSE, *(recipe for recipe in swept if takes(model, recipe))]
    settings = {"rounds": args.rounds, "decoded": args.decoded}
    found: dict[str, Any] = {"environment": environment(model, settings), "lengths": {}}
    for length in map(int, args.lengths.split(",")):
        rows = measure(model, length, recipes, args.rounds, args.decoded, lambda line: print(line, flush=True))
        found["lengths"][str(length)] = rows
        print(f"\n{length} tokens{'':24} decode ms  x dense   prefill x   bytes share")
        for row in rows:
            print(
                f"{row['recipe']:34} {row['decode_seconds'] * 1e3:9.2f} {row['decode_time_to_dense']:8.2f} "
                f"{row['prefill_time_to_dense']:11.2f} {row['prefill_share_to_dense']:13.3f}"
            )
        if args.out:
            args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
